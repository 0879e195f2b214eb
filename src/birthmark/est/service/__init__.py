"""EST services: operations, authentication of callers, and the operators' records for it."""

from birthmark.est.service.approvals import EnrollmentApprovals
from birthmark.est.service.operations import EstService, TokenIssuer
from birthmark.est.service.registration_authorities import RegistrationAuthorities
from birthmark.est.service.users_and_bootstrap_cas import EstCredentials

__all__ = ["EnrollmentApprovals", "EstCredentials", "EstService", "RegistrationAuthorities", "TokenIssuer"]
