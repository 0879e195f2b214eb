"""What EST does (`operations`), who asks (`callers`), and what operators put on record about that."""

from birthmark.est.service.approvals import Approvals
from birthmark.est.service.authorities import RegistrationAuthorities
from birthmark.est.service.credentials import Credentials
from birthmark.est.service.operations import EstService, Tokens

__all__ = ["Approvals", "Credentials", "EstService", "RegistrationAuthorities", "Tokens"]
