"""Clock, proxy, names, ports, and the server itself."""

import sys
from collections.abc import Mapping
from pathlib import Path

from doctor.environment_faults import ENV
from doctor.fault import Fault, typed

COLD = f'export PATH="{Path(sys.executable).parent}:$PATH"'  # a warm interpreter has started by the right time
LATER = "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1); export FAKETIME=+7250s DONT_FAKE_MONOTONIC=1"
DEAD_PROXY = "export https_proxy=http://127.0.0.1:9"
ASK = "AWS_MAX_ATTEMPTS=1 aws iot describe-endpoint"
NEW_DATA = 'mkdir -m 0700 data; touch data/server.lock; export BIRTHMARK_DATA="$PWD/data"'

NETWORK: Mapping[str, Fault] = {
    "clock two hours ahead": Fault(
        typed(ENV, COLD, LATER),
        "doctor.clock_wrong",
        "-72",
        options="",
        for_a_person="a test does not set the machine's clock, and only its administrator may",
    ),
    "proxy that is not there": Fault(
        typed(ENV, DEAD_PROXY), "doctor.proxy_unreachable", "127.0.0.1:9", options="", works=ASK
    ),
    "proxy that is no address": Fault(
        typed(ENV, "export HTTPS_PROXY=proxy.example"), "doctor.proxy_malformed", "HTTPS_PROXY", options=""
    ),
    "proxy in front of the server of this machine": Fault(
        typed(ENV, "export https_proxy=http://proxy.example:3128"),
        "doctor.proxy_for_local_server",
        "no_proxy",
        works=ASK,
    ),
    "hub in the place of the provisioning service": Fault(
        typed("unset BIRTHMARK_DATA; export PROVISIONING_HOST=my-hub.azure-devices.net"),
        "doctor.endpoint_is_hub",
        "my-hub.azure-devices.net",
    ),
    "name that is not known": Fault(
        typed(ENV, "export PROVISIONING_HOST=nowhere.invalid"), "links.host_unknown", "nowhere.invalid", options=""
    ),
    "endpoint of another server": Fault(
        typed(ENV, 'export AWS_ENDPOINT_URL_IOT="https://localhost:9"'),
        "doctor.environment_of_another_server",
        "localhost:9",
        options="",
        works=ASK,
    ),
    "server that is not believed": Fault(
        typed(ENV, "birthmark ca init --name Other --dir other", 'export SSL_CERT_FILE="$PWD/other/root.pem"'),
        "links.server_untrusted",
        "not trusted",
        options="",
    ),
    "directory of a server that does not run": Fault(
        typed(ENV, NEW_DATA), "operator.server_not_running", "data", options=""
    ),
    "key of the server open to others": Fault(
        typed('chmod 0644 "$BIRTHMARK_DATA/operator.token"'), "doctor.private_file_exposed", "operator.token"
    ),
}
