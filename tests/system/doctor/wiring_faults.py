"""The way to a chip: buses, addresses, the channel; and OpenSSL's configuration."""

from collections.abc import Mapping

from doctor.fault import Fault, typed

PLAIN = ("doctor.channel_plain", "doctor.middleware_missing")  # of a machine without a chip
BUS = "mkdir dev; touch dev/i2c-2; chmod 0600 dev/i2c-2"
ENC = "852b5962e9cce5d0be746b833bcc6287"  # the SE050C1's, as NXP publishes it
KEYS = f"(umask 077; printf 'ENC {ENC}\\nMAC {ENC}\\nDEK {ENC}\\n' > scp.txt)"
PROVIDER = """
openssl_conf = birthmark
[birthmark]
providers = listed
[listed]
default = plain
pkcs11 = chip
[plain]
activate = 1
[chip]
pkcs11-module-path = {module}
pkcs11-module-cache-keys = false
activate = 1
"""


def with_openssl(change: str = "", module: str = "/usr/lib/*/softhsm/libsofthsm2.so") -> str:
    text = PROVIDER.format(module="MODULE").replace("\n", "\\n")
    edit = f"; sed -i '{change}' openssl.cnf" if change else ""
    return f"printf '{text}' > openssl.cnf; sed -i \"s|MODULE|$(echo {module})|\" openssl.cnf{edit}"


CONF = 'export OPENSSL_CONF="$PWD/openssl.cnf"'
WIRING: Mapping[str, Fault] = {
    "bus that is not there": Fault(
        typed(BUS, 'export EX_SSS_BOOT_SSS_PORT="$PWD/dev/i2c-1:0x48"'), "doctor.bus_missing", "i2c-2", leaves=PLAIN
    ),
    "middleware that is not there": Fault(
        typed(BUS, 'export EX_SSS_BOOT_SSS_PORT="$PWD/dev/i2c-2:0x48"'),
        "doctor.middleware_missing",
        "libsss_pkcs11",
        leaves=("doctor.channel_plain",),
    ),
    "address with eight bits": Fault(
        typed(BUS, 'export EX_SSS_BOOT_SSS_PORT="$PWD/dev/i2c-2:0x90"'), "doctor.bus_address", "0x90", leaves=PLAIN
    ),
    "address with seven bits": Fault(
        typed(
            "mkdir -p root/etc/cryptoauthlib slots",
            'echo "filestore = $PWD/slots" > root/etc/cryptoauthlib/cryptoauthlib.conf',
            "printf 'interface = i2c,0x35\\ndevice = ATECC608A-TNGTLS\\n' > slots/0.conf",
        ),
        "doctor.bus_address",
        "0x35",
        options="--offline --root root",
    ),
    "no directory of slots": Fault(
        typed(
            "mkdir -p root/etc/cryptoauthlib",
            'echo "filestore = $PWD/slots" > root/etc/cryptoauthlib/cryptoauthlib.conf',
        ),
        "doctor.filestore_missing",
        "slots",
        options="--offline --root root",
    ),
    "channel in plain": Fault(
        typed(BUS, 'export EX_SSS_BOOT_SSS_PORT="$PWD/dev/i2c-2:0x48"'),
        "doctor.channel_plain",
        "EX_SSS_BOOT_SCP03_PATH",
        for_a_person="keys are written into a chip once and for good, by the vendor's tool",
    ),
    "channel under published keys": Fault(
        typed(KEYS, 'export EX_SSS_BOOT_SCP03_PATH="$PWD/scp.txt"'),
        "doctor.channel_factory_keys",
        "SE050C1",
        for_a_person="as above",
    ),
    "channel keys open to others": Fault(
        typed(
            KEYS,
            f"sed -i s/{ENC}/{'5a' * 16}/ scp.txt; chmod 0644 scp.txt",
            'export EX_SSS_BOOT_SCP03_PATH="$PWD/scp.txt"',
        ),
        "doctor.channel_keys_exposed",
        "0644",
    ),
    "OpenSSL's configuration is gone": Fault(
        typed("export OPENSSL_CONF=/gone/openssl.cnf"), "doctor.openssl_conf_missing", "/gone/openssl.cnf"
    ),
    "chip's library of PKCS11_PROVIDER_MODULE is gone": Fault(
        typed("export PKCS11_PROVIDER_MODULE=/gone/libchip.so"), "doctor.path_missing", "/gone/libchip.so"
    ),
    "TPM's store is gone": Fault(typed("export TPM2_PKCS11_STORE=/gone/store"), "doctor.path_missing", "/gone/store"),
    "provider that shares keys": Fault(
        typed(with_openssl("/cache-keys/d"), CONF), "doctor.provider_caches_keys", "cache-keys"
    ),
    "default provider not active": Fault(
        typed(with_openssl("/^\\[plain\\]/,/activate/{/activate/d}"), CONF),
        "doctor.provider_default_missing",
        "default",
    ),
    "default provider not listed": Fault(
        typed(with_openssl("/^default = plain/d"), CONF), "doctor.provider_default_missing", "default"
    ),
    "chip's library of the provider is gone": Fault(
        typed(with_openssl(module="/gone/libchip.so"), CONF), "doctor.openssl_module_missing", "/gone/libchip.so"
    ),
    "PIN in a file that others read": Fault(
        typed(with_openssl("/^pkcs11-module-path/a pkcs11-module-token-pin = 1234"), "chmod 0644 openssl.cnf", CONF),
        "doctor.pin_exposed",
        "0644",
    ),
}
