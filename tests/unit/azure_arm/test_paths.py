import re

import pytest

from birthmark.azure_arm.model import ArmOperation, ArmResourceKind
from birthmark.azure_arm.rules.operation_paths import OperationNotServedError, PathInvalidError, call_of
from birthmark.errors import BirthmarkError

AT = "/subscriptions/sub/resourceGroups/a-group_(1)/providers/Microsoft.Devices"


@pytest.mark.parametrize(
    ("method", "path", "operation", "kind"),
    [
        ("GET", f"{AT}/IotHubs/h/certificates", ArmOperation.LIST_CERTIFICATES, ArmResourceKind.HUB),
        ("PUT", f"{AT}/provisioningServices/h/certificates/c", ArmOperation.PUT_CERTIFICATE, ArmResourceKind.DPS),
        ("POST", f"{AT}/IotHubs/h/IotHubKeys/c/listkeys", ArmOperation.GET_KEY, ArmResourceKind.HUB),
        ("POST", f"{AT}/provisioningServices/h/keys/c/listkeys", ArmOperation.GET_KEY, ArmResourceKind.DPS),
        ("GET", f"{AT}/IotHubs", ArmOperation.LIST_SERVICES, ArmResourceKind.HUB),
        (
            "GET",
            "/subscriptions/sub/providers/Microsoft.Devices/IotHubs",
            ArmOperation.LIST_SERVICES,
            ArmResourceKind.HUB,
        ),
    ],
)
def test_a_path_is_an_operation(method: str, path: str, operation: ArmOperation, kind: ArmResourceKind) -> None:
    call = call_of(method, path)
    assert (call.operation, call.kind, call.subscription) == (operation, kind, "sub")
    assert call.group in {"a-group_(1)", None}
    assert call.service in {"h", ""}
    assert call.name in {"c", ""}


def test_literal_parts_count_in_any_letter_case_and_names_in_theirs() -> None:
    call = call_of("GET", "/Subscriptions/sub/resourcegroups/G/PROVIDERS/microsoft.devices/iothubs/Mine")
    assert (call.operation, call.group, call.service) == (ArmOperation.GET_SERVICE, "G", "Mine")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"{AT}/provisioningServices/h"),
        ("PATCH", f"{AT}/IotHubs/h"),
        ("POST", f"{AT}/IotHubs/h/routing/routes/other"),
        ("PATCH", f"{AT}/IotHubs/h/certificates/c"),
        ("GET", f"{AT}/IotHubs/h/certificates/c/"),
        ("POST", f"{AT}/IotHubs/h/keys/c/listkeys"),
        ("GET", f"{AT}/provisioningServices/h/IotHubStats"),
        ("GET", "/subscriptions/sub/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a"),
        ("GET", "/subscriptions"),
        ("GET", "/providers/Microsoft.Devices/operations"),
    ],
)
def test_what_is_no_operation_here_is_refused_by_its_name(method: str, path: str) -> None:
    with pytest.raises(OperationNotServedError, match=re.escape(path)):
        call_of(method, path)


@pytest.mark.parametrize(
    "path",
    [
        f"{AT}/IotHubs/a%2Fb",
        f"{AT}/IotHubs/a%20b/certificates",
        f"{AT}/IotHubs/{'a' * 65}",
        f"{AT}/IotHubs/h/certificates/a%0Ab",
        f"{AT}/IotHubs/h/certificates/..",
        f"{AT}/IotHubs/h/certificates/.",
        "/subscriptions/a%22b/providers/Microsoft.Devices/IotHubs",
        f"/subscriptions/sub/resourceGroups/{'g' * 91}/providers/Microsoft.Devices/IotHubs",
    ],
)
def test_a_name_that_cannot_be_is_told_so(path: str) -> None:
    with pytest.raises(PathInvalidError):
        call_of("GET", path)


def test_an_empty_name_is_none() -> None:
    with pytest.raises(BirthmarkError):
        call_of("GET", f"{AT}/IotHubs//certificates")
