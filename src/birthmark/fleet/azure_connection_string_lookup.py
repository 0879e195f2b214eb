"""Connection string of a provisioning service from the signed-in user, so that no file stores it.

The vendor's own chain finds the credential: a managed identity, environment variables, `az login` (azure-identity). Its
management API returns the key of one policy (Azure Resource Manager, Microsoft.Devices).
"""

import base64
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from birthmark.auth.connection_strings import ConnectionString
from birthmark.fleet.errors import (
    CredentialsRefusedError,
    NotAllowedError,
    ProfileError,
    SdkMissingError,
    TargetRefusedError,
    TargetUnreachableError,
    network_reason,
)

POLICY = "provisioningserviceowner"
_ACTION = re.compile(r"perform action '([^']+)'")
_KEYS = "Microsoft.Devices/provisioningServices/keys/listkeys/action"


@dataclass(frozen=True, slots=True)
class AzureAccount:
    """Location of a provisioning service. `management_url` is that of a cloud other than the public one."""

    service: str
    resource_group: str
    subscription: str
    policy: str = POLICY
    management_url: str | None = None

    @property
    def description(self) -> str:
        """Display name of the source."""
        return f"Azure subscription {self.subscription}, resource group {self.resource_group}"


def connect(account: AzureAccount, credential: Any = None) -> tuple[str, str | None]:
    """Return the service's connection string and its ID scope. Raise errors that end the run."""
    try:
        from azure.core import exceptions
        from azure.identity import DefaultAzureCredential
        from azure.mgmt.iothubprovisioningservices import IotDpsClient
    except ImportError as error:
        raise SdkMissingError(package="azure-identity", extra="azure") from error
    at: dict[str, Any] = {}
    if account.management_url is not None:
        at = {"base_url": account.management_url, "credential_scopes": [f"{account.management_url}/.default"]}
    client = IotDpsClient(credential or DefaultAzureCredential(), account.subscription, **at)
    where = {"provisioning_service_name": account.service, "resource_group_name": account.resource_group}
    try:
        found = client.iot_dps_resource.get(**where)
        rule = client.iot_dps_resource.list_keys_for_key_name(key_name=account.policy, **where)
    except exceptions.ClientAuthenticationError as error:
        reason = str(error.message).splitlines()[0]
        raise CredentialsRefusedError(target=account.description, reason=reason) from error
    except exceptions.HttpResponseError as error:
        raise _meant(account, error) from error
    except exceptions.AzureError as error:
        raise TargetUnreachableError(target=account.description, reason=network_reason(error)) from error
    host, key = found.properties.service_operations_host_name, _key(rule.primary_key)
    if not host or key is None:
        raise ProfileError(profile=account.service, detail=f"{account.description} returned no host or no key")
    return ConnectionString(str(host), account.policy, key).render(), found.properties.id_scope


def _meant(account: AzureAccount, error: Any) -> Exception:
    reason = str(error.message).splitlines()[0].rstrip(".")
    if error.status_code == HTTPStatus.FORBIDDEN:
        action = _ACTION.search(reason)
        told = {"action": action[1] if action else _KEYS, "reason": reason}
        return NotAllowedError(target=account.description, **told)
    return TargetRefusedError(target=account.description, reason=reason)


def _key(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text or "", validate=True) or None
    except ValueError:
        return None
