"""The words of Azure's command line `az iot`, and what they are here: whoever types them is led to Azure's side of it.

The table of docs/reference/glossary.md has the same rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from birthmark.cli.tree import known_of


@dataclass(frozen=True, slots=True)
class Here:
    """What a command of `az iot` is here: one command, and what has to be known of it."""

    command: str
    """As it is typed; where there is no such thing, the one that is nearest to it."""
    note: str = ""
    """A sentence; where there is no such thing, that."""


_NO_CONFIGURATIONS = "Configurations by a condition are not served: a twin is changed by itself"
_NO_JOBS = "Jobs are not served: what a query finds is changed one by one"
_FIXED = "The policies are those that Azure makes of itself: none is added, changed or removed"
_RELATIONS = "Parents and children have no command here; `az iot` itself sets them, with --login"
_ENDPOINTS = "Endpoints are webhooks, folders, streams, NATS and MQTT; none is a service of Azure's"
_BY_ITS_NAME = "A key is shown again with its connection string; a new one has a device that is removed and made again"

AZ: Mapping[str, Here] = {
    "hub certificate": Here("hub ca"),
    "hub certificate create": Here("hub ca create"),
    "hub certificate update": Here("hub ca create", "One on record is removed first"),
    "hub certificate generate-verification-code": Here("hub ca code"),
    "hub certificate verify": Here("hub ca verify"),
    "hub certificate list": Here("hub ca ls"),
    "hub certificate show": Here("hub ca ls"),
    "hub certificate delete": Here("hub ca rm"),
    "hub device-identity": Here("hub device"),
    "hub device-identity create": Here("hub device create"),
    "hub device-identity list": Here("hub device ls"),
    "hub device-identity show": Here("hub device show"),
    "hub device-identity update": Here("hub device disable", "Or `birthmark hub device enable`"),
    "hub device-identity delete": Here("hub device rm"),
    "hub device-identity renew-key": Here("hub device key", _BY_ITS_NAME),
    "hub device-identity connection-string": Here("hub device key"),
    "hub device-identity export": Here("hub device ls", "With --json it is read by programs"),
    "hub device-identity parent": Here("hub device show", _RELATIONS),
    "hub device-identity children": Here("hub device show", _RELATIONS),
    "hub device connection-string": Here("hub device key"),
    "hub module-identity": Here("hub module"),
    "hub module-identity create": Here("hub module create"),
    "hub module-identity list": Here("hub module ls"),
    "hub module-identity show": Here("hub module show"),
    "hub module-identity delete": Here("hub module rm"),
    "hub module-identity renew-key": Here("hub module key", _BY_ITS_NAME.replace("device", "module")),
    "hub module-identity connection-string": Here("hub module key"),
    "hub module connection-string": Here("hub module key"),
    "hub device-twin": Here("hub twin"),
    "hub device-twin list": Here("hub query"),
    "hub module-twin": Here("hub twin", "A module is named DEVICE/MODULE"),
    "hub digital-twin": Here("hub twin"),
    "hub invoke-device-method": Here("hub method"),
    "hub invoke-module-method": Here("hub method", "A module is named DEVICE/MODULE"),
    "hub monitor-events": Here("hub monitor"),
    "hub monitor-feedback": Here("hub feedback"),
    "hub c2d-message": Here("hub c2d"),
    "hub consumer-group": Here("hub monitor", "A group is made by its name: --consumer-group NAME"),
    "hub connection-string": Here("hub key"),
    "hub show-connection-string": Here("hub key"),
    "hub generate-sas-token": Here("hub key", "The SDKs make tokens of a connection string"),
    "hub show-stats": Here("hub show"),
    "hub show-quota-metrics": Here("hub show"),
    "hub policy list": Here("hub policy ls"),
    "hub policy renew-key": Here("hub policy rotate"),
    "hub policy create": Here("hub policy ls", _FIXED),
    "hub policy update": Here("hub policy ls", _FIXED),
    "hub policy delete": Here("hub policy ls", _FIXED),
    "hub configuration": Here("hub twin", _NO_CONFIGURATIONS),
    "hub job": Here("hub query", _NO_JOBS),
    "hub route list": Here("hub route ls"),
    "hub route delete": Here("hub route rm"),
    "hub route update": Here("hub route create", "One on record is removed first"),
    "hub routing-endpoint": Here("hub endpoint", _ENDPOINTS),
    "hub message-route": Here("hub route"),
    "hub message-route create": Here("hub route create", _ENDPOINTS),
    "hub message-route list": Here("hub route ls"),
    "hub message-route show": Here("hub route show"),
    "hub message-route delete": Here("hub route rm"),
    "hub message-route test": Here("hub route test"),
    "hub message-endpoint": Here("hub endpoint", _ENDPOINTS),
    "hub message-endpoint create": Here("hub endpoint create", _ENDPOINTS),
    "hub message-endpoint list": Here("hub endpoint ls"),
    "hub message-endpoint delete": Here("hub endpoint rm"),
    "hub message-enrichment": Here("hub enrichment"),
    "hub message-enrichment create": Here("hub enrichment create"),
    "hub message-enrichment list": Here("hub enrichment ls"),
    "hub message-enrichment delete": Here("hub enrichment rm"),
    "dps certificate": Here("dps ca"),
    "dps certificate create": Here("dps ca create"),
    "dps certificate update": Here("dps ca create", "One on record is removed first"),
    "dps certificate generate-verification-code": Here("dps ca code"),
    "dps certificate verify": Here("dps ca verify"),
    "dps certificate list": Here("dps ca ls"),
    "dps certificate show": Here("dps ca ls"),
    "dps certificate delete": Here("dps ca rm"),
    "dps linked-hub": Here("dps link"),
    "dps linked-hub create": Here("dps link"),
    "dps linked-hub delete": Here("dps show", "A hub that is linked stays linked"),
    "dps linked-hub list": Here("dps show"),
    "dps linked-hub show": Here("dps show"),
    "dps access-policy": Here("dps policy"),
    "dps access-policy list": Here("dps policy ls"),
    "dps access-policy show": Here("dps policy show"),
    "dps policy list": Here("dps policy ls"),
    "dps policy renew-key": Here("dps policy rotate"),
    "dps policy create": Here("dps policy ls", _FIXED),
    "dps policy update": Here("dps policy rotate", "Keys are made anew; nothing else of a policy changes"),
    "dps policy delete": Here("dps policy ls", _FIXED),
    "dps connection-string": Here("dps key"),
    "dps enrollment": Here("device enroll"),
    "dps enrollment create": Here("device enroll"),
    "dps enrollment update": Here("device enroll", "With --update"),
    "dps enrollment list": Here("device ls"),
    "dps enrollment show": Here("device show"),
    "dps enrollment delete": Here("device rm"),
    "dps enrollment registration": Here("device ls"),
    "dps enrollment-group": Here("device enroll-group"),
    "dps enrollment-group create": Here("device enroll-group"),
    "dps enrollment-group update": Here("device enroll-group", "With --update"),
    "dps enrollment-group list": Here("device ls"),
    "dps enrollment-group show": Here("device ls"),
    "dps enrollment-group delete": Here("device rm", "With --group"),
    "dps enrollment-group registration": Here("device ls"),
    "dps registration": Here("device ls"),
    "dps registration delete": Here("dps release"),
    "device c2d-message": Here("hub c2d"),
    "device c2d-message receive": Here("hub c2d", "A device receives by its SDK; here it is seen which wait"),
    "device send-d2c-message": Here("device send"),
    "device registration": Here("device register"),
    "device simulate": Here("device connect", "Many devices at once: `birthmark swarm run`"),
    "edge": Here("hub module"),
    "edge devices": Here("hub device create", "With --edge"),
    "edge set-modules": Here("hub module create", "One by one; `az iot` itself sets all at once, with --login"),
    "edge deployment": Here("hub module create", "Deployments by a condition are not served"),
}
"""The words behind `az iot` -> what they are here."""


_SAME = {"hub", "dps", "device"}
"""Groups that are called so at Azure, too."""


def in_azures_words(typed: tuple[str, ...]) -> tuple[str, Here] | None:
    """Return what was typed in words of `az iot`, as many of them as are known, and what that is here."""
    words = typed[1:] if typed[:1] == ("iot",) else typed
    for count in range(len(words), 0, -1):
        if (found := AZ.get(said := " ".join(words[:count]))) is not None:
            return said, found
    known = known_of(words)
    if words != typed and known[:1] and known[0] in _SAME:
        return " ".join(known), Here(" ".join(known), "It is typed without `iot`")
    return None
