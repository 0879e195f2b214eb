"""What is measured, a module each; `ALL` has them in the order of the table."""

from measures.connect import HubConnect
from measures.handshake import Handshake
from measures.ingest import IngestOneInFlight, IngestTenInFlight
from measures.measure import Measure

ALL: tuple[type[Measure], ...] = (Handshake, HubConnect, IngestOneInFlight, IngestTenInFlight)
