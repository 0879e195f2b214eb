"""What is measured, a module each; `ALL` has them in the order of the table."""

from measures.agent import AgentMemory, AgentMemoryWithToken, AgentStart
from measures.connect import HubConnect
from measures.documents import MethodCall, ShadowUpdate, TwinPatch
from measures.fan_out import LiveOne, LiveTen, OneToMany, StoredOne, StoredTen
from measures.first_contact import ByClaim, JustInTime
from measures.handshake import (
    Handshake,
    HandshakeAndRequest,
    HandshakeBesideCaddy,
    HandshakeBesideHaproxy,
    HybridHandshake,
)
from measures.idle import Idle
from measures.ingest import (
    AgainstPythonOne,
    AgainstPythonTen,
    IngestBesideDurable,
    IngestOneInFlight,
    IngestRecordEach,
    IngestTenInFlight,
)
from measures.job import FirstGreenTest
from measures.manifest import ManifestMeasure
from measures.measure import Measure
from measures.people import PersonsRequest
from measures.queries import FirstPage, QueryByTag
from measures.registration import Registration, RegistrationAmongMany, RegistrationWithFigures
from measures.registry import Bulk, ModuleConnect, RegistryPage, Reissue
from measures.renewal import KeptRenewal, KeptRenewalBesideGlobalSign, Renewal, RenewalBesideGlobalSign
from measures.revocation import RevocationAnswer
from measures.rules import JobSteps, Republished, Unwanted
from measures.sigv4 import RegisterCertificate, RegisterCertificateBesideNginx
from measures.simulated import SimulatedDevice, SimulatedStart
from measures.start import ServerMemory, ServerStart
from measures.stored import Matching, MemoryWithSessions, StartWithSessions

ALL: tuple[type[Measure], ...] = (
    Handshake,
    HandshakeBesideHaproxy,
    HandshakeBesideCaddy,
    HandshakeAndRequest,
    HybridHandshake,
    Registration,
    HubConnect,
    IngestOneInFlight,
    IngestBesideDurable,
    IngestTenInFlight,
    IngestRecordEach,
    AgainstPythonOne,
    AgainstPythonTen,
    Idle,
    Renewal,
    RegisterCertificate,
    RegisterCertificateBesideNginx,
    ManifestMeasure,
    RegistrationAmongMany,
    LiveOne,
    LiveTen,
    StoredOne,
    StoredTen,
    OneToMany,
    TwinPatch,
    ShadowUpdate,
    MethodCall,
    StartWithSessions,
    MemoryWithSessions,
    Matching,
    RevocationAnswer,
    KeptRenewal,
    AgentMemory,
    AgentMemoryWithToken,
    AgentStart,
    SimulatedDevice,
    SimulatedStart,
    PersonsRequest,
    RegistrationWithFigures,
    JustInTime,
    ByClaim,
    QueryByTag,
    FirstPage,
    Bulk,
    ModuleConnect,
    Reissue,
    RegistryPage,
    Unwanted,
    Republished,
    JobSteps,
    ServerStart,
    ServerMemory,
    FirstGreenTest,
    RenewalBesideGlobalSign,
    KeptRenewalBesideGlobalSign,
)
