"""Write docs/reference/agent-config.md from the table of the agent's settings.

python tools/make_agent_config.py
"""

from pathlib import Path

import birthmark
from birthmark.agent.config.setting_catalog import SECTIONS, SettingSection, every_setting

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "agent-config.md"
HEAD = """# Agent configuration

`birthmark agent` reads the `config.toml` of aziot: `/etc/aziot/config.toml`, or the file that `--config` or
`BIRTHMARK_AGENT_CONFIG` names. The agent merges the files of `config.d` next to it (`config.d/*.toml`, sorted by
name): it merges tables and replaces other values.

| command | purpose |
|---|---|
| `birthmark env --format aziot` | prints a configuration for a Birthmark server |
| `birthmark agent check` | reports all errors at once, with file, line, key and the accepted values |
| `birthmark agent config ls` | lists the values in effect |
| `birthmark agent config ls --doc` | lists the settings of this page |

Paths are `file:` URIs with an absolute path. Keys are `file:` URIs or `pkcs11:` URIs. For a PIN, use
`pin-source=file:/path` (mode 0600); the agent also accepts aziot's `pin-value`. `tools/make_agent_config.py` writes
this page.

As root, the agent rejects a file of `config.d` that another user can write. The same applies to a PKCS#11 library
that another user can write or replace, in any directory above it. The agent trusts the owner of `config.toml`.
"""
TAIL = """
## Behavior

**EST.** With a bootstrap certificate, the agent first requests an EST identity (`est-id`). The EST identity requests
all other certificates and renews itself. The agent uses the bootstrap certificate again only if the EST server rejects
all other credentials.

**Renewal.** `auto_renew` requires all three of its keys. The agent renews a device identity only with an `auto_renew`
table and `source = "dps"` or `"aws"`. By default, it renews the EST identity, local CA and edge CA at 80% of their
lifetime.

**Edge CA.** The agent requests and keeps an edge CA if the configuration has an `[edge_ca]` table. `method = "est"`
requires a URL that issues CAs, `aziot-edged-ca` in `[cert_issuance.est.urls]` (on a Birthmark server:
[a label](server-config.md#est-labels)). Issued certificates and keys are in `var/lib/aziot/certd/certs` and
`keyd/keys`, under aziot's names.

**AWS.** With `source = "aws"`, the device connects to the data endpoint of an account over MQTT, as the thing, with its
certificate. AWS must know the certificate or register it just in time. The agent tests a renewed certificate by
connecting with it. On a Birthmark server, the new certificate takes over the attachments of the old one
([renewal at AWS](../howto/aws-renewal.md)). `--telemetry` publishes to `devices/THING/data`.

**Azure.** `method = "azure"` is for a device identity with `source = "dps"`. The device registers with the bootstrap
certificate and a certificate request, and receives a certificate by the enrollment's issuing policy. The hub issues
later certificates on the existing connection ([certificates from Azure](../howto/azure-certificates.md)). If the hub
rejects a certificate, the agent registers again, at most once an hour.

**Enrollment.** With other methods, an individual enrollment matches one certificate and rejects the renewed one. Enroll
the device's CA as a group (`birthmark device enroll-group`). `check` warns about this.

**Last good configuration.** The agent keeps the last applied configuration that worked. If it starts with an invalid
configuration, it uses the last good one; `status` and `check` report this. `apply` rejects an invalid configuration.

**Jobs.** `[jobs]` applies to devices with `source = "aws"`: it lists what a job may do
([jobs of the agent](../howto/agent-jobs.md)). An unknown key there is an error, because it may be a restriction.

## Warnings

| key | why |
|---|---|
| `identity_pk` with an issued `identity_cert`, `pk` with an issued `cert` | the agent generates the key |
| `expiry_days` with `method = "est"` or `"azure"` | the server decides |
| `common_name` that differs from `registration_id` | the registration ID is the name |
| `iothub_hostname`, `device_id`, `authentication` with `connection_string` | the connection string contains it |
| any other key | unknown; the warning names the closest known key |

## Errors

Exit code 6, "not supported by this agent":

| key | use instead |
|---|---|
| `provisioning.source = "none"` | `"dps"`, `"manual"` or `"aws"` |

Exit code 2 means an invalid configuration:

- invalid TOML, or a missing or mistyped key
- `parent_hostname` with `source = "dps"` or `"aws"`
- `method = "azure"` with another source than `"dps"`, or without a bootstrap certificate
- an EST URL with `http:`, or a user name without a password
- `identity_cert` together with `bootstrap_identity_cert`
- an invalid `threshold` or `retry`
- a `pkcs11:` key without `aziot_keys.pkcs11_lib_path`
- a symmetric key that is not base64
"""


def table_of(section: SettingSection) -> str:
    """Return one section; where its keys stand in several tables, those are named before."""
    several = len(section.tables) > 1
    places = ", ".join(f"`[{name}]`" for name in section.tables)
    intro = f"In {places}:\n\n" if several else ""
    settings = section.settings if several else tuple(section.each())
    rows = [f"| `{one.key}` | {one.takes} | {one.default} | {one.means} |" for one in settings]
    head = "| key | takes | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {section.title}\n\n{intro}{head}" + "\n".join(rows) + "\n"


def page() -> str:
    """Return the page."""
    return HEAD + "".join(table_of(section) for section in SECTIONS) + TAIL


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{len(list(every_setting()))} settings")
