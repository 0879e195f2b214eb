"""Write docs/reference/agent-config.md from the table of the agent's settings.

python tools/make_agent_config.py
"""

from pathlib import Path

import birthmark
from birthmark.agent.config.catalog import SECTIONS, SettingSection, every_setting

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "agent-config.md"
HEAD = """# Agent configuration

`birthmark agent` reads the `config.toml` that aziot users know: `/etc/aziot/config.toml`, or what `--config` or
`BIRTHMARK_AGENT_CONFIG` names. The files of `config.d` beside it (`config.d/*.toml`, by name) are put over it:
tables are merged, other values replaced. `birthmark env --format aziot` prints one filled in for a Birthmark server;
`birthmark agent check` tells all that is wrong with yours at once, each with file, line, key and what would be
accepted (below a `source` or `method` that is not known, when that is right), and `birthmark agent config ls` what
is in effect.

Paths are `file:` URIs with an absolute path. Keys are `file:` URIs or `pkcs11:` URIs; a PIN comes by
`pin-source=file:/path` (mode 0600), and aziot's `pin-value` is read too. This page is written by
`tools/make_agent_config.py`; `birthmark agent config ls --doc` prints the same settings.

As root, the agent rejects a file of `config.d` that another user can write, and a PKCS#11 library that another user can
write or replace, in any directory above it. The owner of `config.toml` counts as trusted.
"""
TAIL = """
## How it is acted on

With a bootstrap certificate the agent gets an EST identity first (`est-id`), which then asks for everything else and
renews itself. The bootstrap certificate is shown again when the EST server believes nothing else any more.

`auto_renew` needs all three of its keys. A device identity is renewed only when it has the table, and only with
`source = "dps"` or `"aws"`; EST identity, local CA and edge CA are renewed at 80% of their life where nothing else is
said. An edge CA is requested and kept when there is an `[edge_ca]` table; `method = "est"` needs the URL at which the
server issues CAs, `aziot-edged-ca` below `[cert_issuance.est.urls]` (here:
[a label](server-config.md#est-labels)). What is issued lies under aziot's names in `var/lib/aziot/certd/certs` and
`keyd/keys`.

With `source = "aws"` the device connects to an account's data endpoint as the thing, by MQTT with its certificate,
which AWS has to know: registered, or just in time by its CA. A renewed certificate is proven by connecting with it; at
a Birthmark server it has what the old one had ([how](../howto/aws-renewal.md)). `--telemetry` goes to
`devices/THING/data`.

With `method = "azure"`, which is for a device identity with `source = "dps"`, the device registers by the bootstrap
certificate with a request and is issued a certificate by the policy of its enrollment; the hub issues the next ones,
on the connection there is ([how](../howto/azure-certificates.md)). What the hub takes no more is replaced the first
way, at most once an hour.

Elsewhere an individual enrollment knows one certificate, and refuses the renewed one: put the device's CA on record as
a group (`birthmark device enroll-group`); `check` warns.

What was applied and worked is kept as the last good configuration. An agent that starts on one with a mistake goes on
with that, and `status` and `check` say so; `apply` refuses it.

`[jobs]` is for devices with `source = "aws"`: what a job may have them do ([how](../howto/agent-jobs.md)). A key that
is not known there is a mistake, as it may stand for a bound.

## Warned of

| key | why |
|---|---|
| `identity_pk` beside an issued `identity_cert`, `pk` beside an issued `cert` | the key is made on the device |
| `expiry_days` with `method = "est"` or `"azure"` | the server decides |
| `common_name` that differs from `registration_id` | the registration id is the name |
| `iothub_hostname`, `device_id`, `authentication` beside `connection_string` | the connection string says it |
| any other key | not known; the nearest known key is told |

## Refused

Exit code 6, "not supported by this agent":

| key | use instead |
|---|---|
| `provisioning.source = "none"` | `"dps"`, `"manual"` or `"aws"` |

Exit code 2, a mistake: TOML that cannot be read, a missing or mistyped key, `parent_hostname` beside `source = "dps"`
or `"aws"`, `method = "azure"` for anything but `"dps"`, or without a bootstrap certificate, an EST URL with `http:`,
user name or password alone, `identity_cert` beside `bootstrap_identity_cert`, a `threshold` or `retry` outside the
grammar, a `pkcs11:` key without `aziot_keys.pkcs11_lib_path`, a shared key that is not base64.
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
