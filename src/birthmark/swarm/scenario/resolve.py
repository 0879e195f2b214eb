"""A target as it was said, and what is known of the place, to a target."""

from collections.abc import Mapping
from typing import Any

from birthmark.links.identity import Trust
from birthmark.swarm.errors import TargetNotNamedError
from birthmark.swarm.model import Way, Where
from birthmark.swarm.scenario.model import Target, Wish

AZURE = "global.azure-devices-provisioning.net"
_HTTPS = 443
_SCOPE = 'eval "$(birthmark env)"'
_HUBS = "birthmark hub ls"
_ENDPOINT = "aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text"


def resolve(wish: Wish, facts: Mapping[str, Any], environment: Mapping[str, str]) -> Target:
    """Return the target: what was said goes before what is known. Raise `TargetNotNamedError`."""
    host, id_scope = wish.host or facts.get("host"), wish.id_scope or facts.get("id_scope")
    if wish.where is Where.AZURE and wish.way is not Way.NONE:
        host = host or environment.get("PROVISIONING_HOST") or AZURE
        id_scope = id_scope or environment.get("PROVISIONING_IDSCOPE")
        if not id_scope:
            raise TargetNotNamedError(where=wish.where, what="the ID scope", option="--id-scope", command=_SCOPE)
    if wish.where is Where.AWS:
        host = host or environment.get("AWS_IOT_ENDPOINT")
    if not host:
        what = "the data endpoint" if wish.where.is_aws else "the hub"
        command = _ENDPOINT if wish.where.is_aws else _HUBS
        raise TargetNotNamedError(where=wish.where, what=what, option="--host", command=command)
    trust = None if wish.trust is None else Trust.of([wish.trust]).pem
    return Target(
        where=wish.where,
        host=host,
        id_scope=id_scope or "",
        way=wish.way,
        mqtt_port=wish.mqtt_port,
        https_port=wish.https_port or facts.get("https_port", _HTTPS),
        est_url=wish.est_url or facts.get("est_url", ""),
        trust=trust or facts.get("trust"),
        level=wish.level if wish.where.is_aws else 4,
        tls=wish.tls,
        at_once=wish.at_once,
    )
