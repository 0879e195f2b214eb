"""Addressing on both clouds: user names, topics and client ids."""

from birthmark.iothub import wire as hub_wire
from birthmark.iothub.client import AGENT
from birthmark.mqtt.packets import LEVEL_5, Connect
from birthmark.mqtt.properties import PropertyId
from birthmark.swarm.model import DeviceGroup
from birthmark.swarm.scenario.model import SwarmTarget

_RECEIVE_MAXIMUM = 100


def connect_packet(
    target: SwarmTarget, group: DeviceGroup, hub: str, name: str, *, client_id: str | None = None
) -> Connect:
    """Return the CONNECT packet of a device; `client_id` overrides its id for misbehaving devices."""
    claimed = client_id or name
    if not target.where.is_aws:
        username = hub_wire.render_username(hub, claimed, AGENT)
        return Connect(claimed, clean_start=False, keep_alive_s=group.keep_alive_s, username=username)
    properties = ((PropertyId.RECEIVE_MAXIMUM, _RECEIVE_MAXIMUM),) if target.level == LEVEL_5 else ()
    return Connect(claimed, keep_alive_s=group.keep_alive_s, level=target.level, properties=properties)


def topic_of(target: SwarmTarget, group: DeviceGroup, name: str) -> str:
    """Return the topic to which a device publishes."""
    if target.where.is_aws:
        return (group.topic or "devices/{name}/data").replace("{name}", name)
    return hub_wire.telemetry_topic(name)


def jobs_topic(name: str, rest: str) -> str:
    """Return a topic of a device's jobs at AWS."""
    return f"$aws/things/{name}/jobs/{rest}"


def own_filter(target: SwarmTarget, group: DeviceGroup, name: str) -> str:
    """Return a topic filter that a device may subscribe to.

    On AWS it is the device's topic, on a hub its cloud-to-device messages.
    """
    return topic_of(target, group, name) if target.where.is_aws else f"devices/{name}/messages/devicebound/#"
