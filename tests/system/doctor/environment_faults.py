"""Variables: of another server, of what is gone."""

from collections.abc import Mapping

from doctor.fault import Fault, typed

ENV = 'eval "$(birthmark env)"'
OTHER = 'mkdir other; touch other/server.lock; cp "$BIRTHMARK_DATA/bundle.pem" other/'

ENVIRONMENT: Mapping[str, Fault] = {
    "CAs of another server": Fault(
        typed(ENV, OTHER, 'export SSL_CERT_FILE="$PWD/other/bundle.pem"'),
        "doctor.environment_of_another_server",
        "SSL_CERT_FILE",
    ),
    "host of another server": Fault(
        typed(ENV, "export PROVISIONING_HOST=127.3.3.3"), "doctor.environment_of_another_server", "127.3.3.3"
    ),
    "ID scope of another server": Fault(
        typed(ENV, "export PROVISIONING_IDSCOPE=0ne00000000"), "doctor.environment_of_another_server", "0ne00000000"
    ),
    "access key of another server": Fault(
        typed(ENV, "export AWS_ACCESS_KEY_ID=AKIAELSEWHERE000000"),
        "doctor.environment_of_another_server",
        "AWS_ACCESS_KEY_ID",
        works="AWS_MAX_ATTEMPTS=1 aws iot list-things",
    ),
    "CAs that are gone": Fault(
        typed("unset BIRTHMARK_DATA; export REQUESTS_CA_BUNDLE=/gone/bundle.pem"),
        "doctor.trust_missing",
        "/gone/bundle.pem",
    ),
    "CAs that are none": Fault(
        typed(ENV, 'echo none > empty.pem; export SSL_CERT_FILE="$PWD/empty.pem"'), "doctor.trust_empty", "empty.pem"
    ),
}
