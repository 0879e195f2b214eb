"""What is asked, of what."""

from dataclasses import dataclass
from enum import Enum

from birthmark.auth.permissions import Right

PROVIDER = "Microsoft.Devices"
GROUP = "birthmark"
"""The resource group in ids of services that were listed without one."""


class ArmResourceKind(Enum):
    """A kind of service: its type in paths and ids, and its place among those where people have rights."""

    DPS = ("provisioningServices", "dps")
    HUB = ("IotHubs", "hub")

    @property
    def segment(self) -> str:
        return self.value[0]

    def place(self, name: str) -> str:
        """Return the place of a service of that name."""
        return f"{self.value[1]}/{name}"


class ArmOperation(Enum):
    """What is served, by the right that it takes at the service; None is for whoever is known."""

    LIST_CERTIFICATES = ("list_certificates", Right.READ)
    GET_CERTIFICATE = ("get_certificate", Right.READ)
    PUT_CERTIFICATE = ("put_certificate", Right.TRUST)
    DELETE_CERTIFICATE = ("delete_certificate", Right.TRUST)
    NEW_CODE = ("new_code", Right.TRUST)
    VERIFY = ("verify", Right.TRUST)
    GET_SERVICE = ("get_service", Right.READ)
    LIST_SERVICES = ("list_services", None)
    LIST_KEYS = ("list_keys", Right.ADMINISTER)
    GET_KEY = ("get_key", Right.ADMINISTER)
    LIST_SKUS = ("list_skus", Right.READ)
    STATISTICS = ("statistics", Right.READ)
    NAME_IS_FREE = ("name_is_free", None)
    PUT_SERVICE = ("put_service", Right.ADMINISTER)
    TEST_ROUTE = ("test_route", Right.READ)
    TEST_ROUTES = ("test_routes", Right.READ)
    ENDPOINTS_HEALTH = ("endpoints_health", Right.READ)

    @property
    def right(self) -> Right | None:
        right: Right | None = self.value[1]
        return right


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """A request's path, read. Names are as the client wrote them, percent-decoded."""

    operation: ArmOperation
    kind: ArmResourceKind
    subscription: str
    group: str | None
    service: str = ""
    name: str = ""
    """Of a certificate or a policy."""

    def id_of(self, service: str) -> str:
        """Return the resource id of a service as this client sees it."""
        group = self.group or GROUP
        at = f"/subscriptions/{self.subscription}/resourceGroups/{group}"
        return f"{at}/providers/{PROVIDER}/{self.kind.segment}/{service}"
