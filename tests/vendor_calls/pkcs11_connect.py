"""Makes the calls of the sample of this name in the AWS IoT Device SDK v2 for Python, with the same options."""

import argparse
import sys

from awscrt import io
from awsiot import mqtt_connection_builder


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "cert", "pkcs11_lib", "pin"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("ca_file", "token_label", "slot", "key_label"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--client_id", default="test")
    given = parser.parse_args()
    connection = mqtt_connection_builder.mtls_with_pkcs11(
        pkcs11_lib=io.Pkcs11Lib(file=given.pkcs11_lib, behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT),
        user_pin=given.pin,
        slot_id=int(given.slot) if given.slot else None,
        token_label=given.token_label,
        private_key_label=given.key_label,
        cert_filepath=given.cert,
        endpoint=given.endpoint,
        port=given.port,
        ca_filepath=given.ca_file,
        client_id=given.client_id,
        clean_session=False,
        keep_alive_secs=30,
    )
    connection.connect().result()
    sys.stdout.write("Connected!\n")
    connection.disconnect().result()
    sys.stdout.write("Disconnected!\n")


if __name__ == "__main__":
    main()
