"""Operations of the management API with the right that each requires, and the parsed request."""

from dataclasses import dataclass
from enum import Enum

from birthmark.auth.permission_statements import Right

PROVIDER = "Microsoft.Devices"
GROUP = "birthmark"
"""Resource group in the IDs of services that were listed without a resource group."""


class ArmResourceKind(Enum):
    """Service kind: its resource type in paths and IDs, and its scope for role assignments."""

    DPS = ("provisioningServices", "dps")
    HUB = ("IotHubs", "hub")

    @property
    def segment(self) -> str:
        return self.value[0]

    def place(self, name: str) -> str:
        """Return the scope of a service."""
        return f"{self.value[1]}/{name}"


class ArmOperation(Enum):
    """Supported operations with the permission each requires on the service.

    None requires authentication only.
    """

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
    QUOTA_METRICS = ("quota_metrics", Right.READ)
    LIST_CONSUMER_GROUPS = ("list_consumer_groups", Right.READ)
    GET_CONSUMER_GROUP = ("get_consumer_group", Right.READ)
    PUT_CONSUMER_GROUP = ("put_consumer_group", Right.ADMINISTER)
    DELETE_CONSUMER_GROUP = ("delete_consumer_group", Right.ADMINISTER)

    @property
    def right(self) -> Right | None:
        right: Right | None = self.value[1]
        return right


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """A parsed request path. Names are as the client wrote them, percent-decoded."""

    operation: ArmOperation
    kind: ArmResourceKind
    subscription: str
    group: str | None
    service: str = ""
    name: str = ""
    """Name of a certificate, a policy or a consumer group."""

    def id_of(self, service: str) -> str:
        """Return the resource ID of a service in the client's subscription and resource group."""
        group = self.group or GROUP
        at = f"/subscriptions/{self.subscription}/resourceGroups/{group}"
        return f"{at}/providers/{PROVIDER}/{self.kind.segment}/{service}"
