import importlib
import pkgutil

import birthmark.est
from birthmark import errors
from birthmark.est.errors import STATUS, status_of
from birthmark.pki.chains import CertificateExpiredError
from birthmark.pki.csr import CsrMalformedError

CLIENT_SIDE = "birthmark.est.client"


def test_every_refusal_of_this_room_has_its_status() -> None:
    for module in pkgutil.walk_packages(birthmark.est.__path__, "birthmark.est."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, errors.BirthmarkError) and kind.__module__ == module.name:
                assert kind in STATUS or kind.__module__ == CLIENT_SIDE, kind


def test_a_refusal_from_below_has_the_status_of_its_kind() -> None:
    assert status_of(CertificateExpiredError(subject="CN=a", not_after="then", now="now")) == 401
    assert status_of(CsrMalformedError(detail="ValueError")) == 400
