"""Who said that a hub may issue certificates to its devices: the enrollments by which they registered."""

from birthmark.ca.ordering import BURST, EVERY_S, Orders
from birthmark.ca.service import CertificateAuthority
from birthmark.dps.service import Enrollments, Instances, Registrations
from birthmark.dps.service.registrations import while_enrolled
from birthmark.errors import NotFoundError
from birthmark.iothub.model import Device
from birthmark.iothub.rules.credentials import NoCredentialPolicyError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.credentials import Grant
from birthmark.refusals.rate_limits import RateLimits


class GrantsByEnrollment:
    """The `Grants` of the hubs: what an operator says of an enrollment counts at once."""

    def __init__(self, instances: Instances, enrollments: Enrollments, registrations: Registrations) -> None:
        self._instances = instances
        self._enrollments = enrollments
        self._registrations = registrations

    async def of(self, device: Device) -> Grant:
        """Return the grant of the enrollment by which a device registered. Raise `NoCredentialPolicyError`."""

        def refusal(detail: str) -> NoCredentialPolicyError:
            return NoCredentialPolicyError(device_id=device.device_id, hub=device.hub, detail=detail)

        scope, _, registration_id = device.maker.removeprefix("dps:").partition("/")
        if not device.maker.startswith("dps:"):
            raise refusal("it did not come by a provisioning service")
        try:
            instance = self._instances.by_scope(scope)
        except NotFoundError as error:
            raise refusal(f"the provisioning service {scope} is gone") from error
        registered = await self._registrations.find(instance, registration_id)
        if registered is None:
            raise refusal(f"its registration {registration_id} is gone")
        group = registered.group_id
        found = await self._enrollments.find(instance.id_scope, group or registration_id, is_group=group is not None)
        if found is None or not found.is_enabled:
            raise refusal(f"its enrollment {group or registration_id} is {'gone' if found is None else 'disabled'}")
        if found.policy is None:
            raise refusal(f"its enrollment {found.id} has none")
        names = dict.fromkeys((device.device_id, registered.common_name or registration_id))
        return Grant(found.policy, tuple(names), while_enrolled(instance, found, registration_id))


def let_clouds_issue(
    iothub: IotHub, orders: Orders, instances: Instances, enrollments: Enrollments, registrations: Registrations
) -> None:
    """Let enrollments name policies, and hubs issue by them."""
    enrollments.issuer = registrations.issuing.issuer = iothub.credentials.issuer = orders
    iothub.credentials.grants = GrantsByEnrollment(instances, enrollments, registrations)


def orders_of(authority: CertificateAuthority, most_alive: int | None = None) -> Orders:
    """Return the CA for rooms that know their devices."""
    limits = RateLimits(burst=BURST, per_s=1 / EVERY_S, max_addresses=16384)
    return Orders(authority, most_alive, limits.has_room)
