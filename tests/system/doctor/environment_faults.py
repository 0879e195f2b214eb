"""Variables: of another server, of what is gone."""

from collections.abc import Mapping

from doctor.fault import Fault, typed

ENV = 'eval "$(birthmark env)"'

ENVIRONMENT: Mapping[str, Fault] = {
    "CAs of another server": Fault(
        typed(
            ENV, "mkdir other; touch other/server.lock other/bundle.pem", 'export SSL_CERT_FILE="$PWD/other/bundle.pem"'
        ),
        "doctor.environment_of_another_server",
        "SSL_CERT_FILE",
    ),
}
