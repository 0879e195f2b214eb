"""The device's agent: gets an identity, registers, stays connected, renews before expiry, and never bricks.

Configured by an aziot-style `config.toml` (Azure's "super-config"), state where aziot keeps it:

| file under ROOT | content |
|---|---|
| `etc/aziot/config.toml` | the configuration |
| `var/lib/aziot/certd/certs/deviceid-….cer` | the certificate and the CAs between, leaf first |
| `var/lib/aziot/keyd/keys/deviceid-….key` | the private key in PEM, or the `pkcs11:` URI of a key in a token |
| `var/lib/aziot/identityd/birthmark.json` | assigned hub, device id, last renewal, last error |

A new certificate is first proven (registered at DPS, connected to the hub) and only then takes the old one's place. A
device that was off for longer than its certificate lived comes back by its bootstrap identity or password.

Different from aziot: one process instead of four; keys are EC P-256. Not here: modules, workload sockets, the edge
runtime. A program that keeps its own connection has the agent inside: `birthmark.agent.connect`.

This room imports no server framework and no database: it runs on small devices.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthmark.agent.library import AgentDevice, Identity, connect

__all__ = ["AgentDevice", "Identity", "connect"]


def __getattr__(name: str) -> Any:
    """Load the library when a program asks for it: the commands do not."""
    if name not in (*__all__, "Device"):  # the earlier name of AgentDevice
        raise AttributeError(name)
    from birthmark.agent import library

    return getattr(library, name)
