"""Device agent: obtains an identity, registers, stays connected, and renews before expiry.

It never replaces a working identity with an unproven one. It is configured by an aziot-style `config.toml` (Azure's
"super-config") and keeps its state where aziot does:

| file under ROOT | content |
|---|---|
| `etc/aziot/config.toml` | the configuration |
| `var/lib/aziot/certd/certs/deviceid-….cer` | the certificate and the intermediate CAs, leaf first |
| `var/lib/aziot/keyd/keys/deviceid-….key` | the private key in PEM, or the `pkcs11:` URI of a key in a token |
| `var/lib/aziot/identityd/birthmark.json` | assigned hub, device ID, last renewal, last error |

The agent first proves a new certificate: it registers at DPS and connects to the hub. Only then does the new
certificate replace the old one. A device that was offline past its certificate's expiry recovers with its bootstrap
identity or password.

Differences from aziot: one process instead of four; keys are EC P-256. Out of scope: modules, workload sockets, the
edge runtime. A program that keeps its own connection embeds the agent: `birthmark.agent.connect`.

This package imports no server framework and no database, so it runs on small devices.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthmark.agent.embedded_agent import AgentDevice, Identity, connect

__all__ = ["AgentDevice", "Identity", "connect"]


def __getattr__(name: str) -> Any:
    """Load the library on first access; the commands do not need it."""
    if name not in (*__all__, "Device"):  # earlier name of AgentDevice
        raise AttributeError(name)
    from birthmark.agent import embedded_agent

    return getattr(embedded_agent, name)
