"""What EST does (`operations`), who asks (`callers`), and what operators put on record about that."""

from birthmark.est.service.approvals import Approvals
from birthmark.est.service.credentials import Credentials
from birthmark.est.service.operations import EstService, Tokens
from birthmark.est.service.registration_authorities import RegistrationAuthorities

__all__ = ["Approvals", "Credentials", "EstService", "RegistrationAuthorities", "Tokens"]
