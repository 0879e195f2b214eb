"""DPS's services: instances, enrollments, CA certificates, registrations, queries. Load, decide, commit."""

from birthmark.dps.service.ca_certificates import Authorities
from birthmark.dps.service.enrollments import Enrollments
from birthmark.dps.service.instances_and_authorization import Instances
from birthmark.dps.service.queries import EnrollmentQueries
from birthmark.dps.service.registrations import Registrations

__all__ = ["Authorities", "EnrollmentQueries", "Enrollments", "Instances", "Registrations"]
