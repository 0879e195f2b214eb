"""Bus rules: NXP's middleware by variables, Microchip's library by files, and protection of the bus."""

import re
import shlex
from collections.abc import Iterator
from functools import partial

from birthmark.doctor.facts import BusFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.rules.chip import NXP_LIBRARY

SE050_ADDRESS = 0x48
_DEVICE = re.compile(r"(/[^:]+)(?::(0[xX][0-9A-Fa-f]{1,2}|[0-9]{1,3}))?")
_INTERFACE = re.compile(r"^([ \t]*interface[ \t]*=[ \t]*i2c[ \t]*,[ \t]*)(0[xX][0-9A-Fa-f]{2})", re.MULTILINE)
_SEVEN_BITS = {0x35: 0x6A, 0x36: 0x6C, 0x60: 0xC0}
"""8-bit addresses, as cryptoauthlib writes them, of Microchip's parts, by their 7-bit addresses on the bus."""
_PAGE = "docs/howto/se050.md, Keep the channel to the chip closed"
_fault = partial(DoctorFinding, topic=Topic.BUS, severity=FindingSeverity.FAULT)
_warning = partial(DoctorFinding, topic=Topic.BUS, severity=FindingSeverity.WARNING)


def device_in(port: str) -> str:
    """Return the bus device that NXP's variable names; empty if it names an access manager instead."""
    found = _DEVICE.fullmatch(port)
    return "" if found is None else found[1]


def findings(facts: BusFacts) -> Iterator[DoctorFinding]:
    """Yield the problems on the path to the secure element."""
    yield from _nxp_port(facts)
    yield from _middleware(facts)
    yield from _channel(facts)
    yield from _microchip(facts)


def _nxp_port(facts: BusFacts) -> Iterator[DoctorFinding]:
    port, device = facts.port, facts.device
    if port is None or device is None:
        return
    named = _DEVICE.fullmatch(port.value)
    address = None if named is None or named[2] is None else int(named[2], 0)
    suffix = f":0x{SE050_ADDRESS:02x}"
    if not device.exists:
        other = facts.devices[0] if facts.devices else ""
        yield _fault(
            "doctor.bus_missing",
            seen=f"{port}: no such device; existing devices: {', '.join(facts.devices) or 'none'}",
            cause="The specified I2C bus does not exist.",
            command=port.set_command(f"{other}{suffix}") if other else "",
            advice="Use an existing one" if other else "Enable I2C in the device tree, for example with `raspi-config`",
            for_a_person="" if other else "the board has to be configured",
        )
    elif device.reason:
        yield _fault(
            "doctor.bus_closed",
            seen=f"{port}: {device.reason}, mode {device.mode:04o}",
            cause="This user does not have permission to use the I2C bus.",
            command='sudo usermod -aG i2c "$(id -un)"',
            advice="Add the user to its group, then log in again",
            for_a_person="the administrator grants access to the bus, from the next login on",
        )
    elif address is not None and address != SE050_ADDRESS:
        yield _fault(
            "doctor.bus_address",
            seen=f"{port}: address 0x{address:02x}; the address of an SE050 is 0x{SE050_ADDRESS:02x}",
            cause="The address is not the chip's; 0x90 is the same address in 8-bit notation.",
            command=port.set_command(f"{device.path}{suffix}"),
            advice="Use 7-bit notation",
        )
    else:
        yield DoctorFinding("doctor.bus", Topic.BUS, FindingSeverity.OK, str(port))


def _middleware(facts: BusFacts) -> Iterator[DoctorFinding]:
    if facts.port is not None and facts.lacks_middleware:
        yield _warning(
            "doctor.middleware_missing",
            seen=f"{facts.port}; no {NXP_LIBRARY}.so in /usr/lib, /usr/local/lib or /usr/lib/plug-and-trust",
            cause="The variable is for NXP's middleware, whose PKCS#11 library is missing or not configured.",
            command='eval "$(birthmark chip simulate chip)"',
            advice=(
                "Build it with PKCS#11 and set its path in BIRTHMARK_PKCS11_MODULE. Or use a simulated secure element"
            ),
        )


def _channel(facts: BusFacts) -> Iterator[DoctorFinding]:
    """Yield findings about SE050 commands that can be read and changed on the bus."""
    said, file = facts.scp03, facts.scp03_file
    if said is None:
        if facts.port is not None or facts.has_nxp_library:
            yield _warning(
                "doctor.channel_plain",
                seen="EX_SSS_BOOT_SCP03_PATH is not set",
                cause="The channel to the chip is unencrypted, or uses the keys that NXP publishes for each variant.",
                advice=f"Give the chip its own keys: {_PAGE}",
                for_a_person="the vendor's tool writes keys to the chip permanently",
            )
    elif file is None or not file.exists:
        yield _fault(
            "doctor.channel_keys_missing",
            seen=f"{said}: no such file",
            cause="The file with the channel's keys does not exist, so the middleware uses its built-in keys.",
            advice=f"Restore the file with mode 0600: {_PAGE}",
            for_a_person="only the owner of the keys has them",
        )
    elif file.mode & 0o077:
        yield _fault(
            "doctor.channel_keys_exposed",
            seen=f"{said}: mode {file.mode:04o}",
            cause="Other users can read the keys of the channel to the chip.",
            command=shlex.join(["chmod", "0600", file.path]),
            advice="Close it",
        )
    elif facts.factory:
        yield _warning(
            "doctor.channel_factory_keys",
            seen=f"{said}: the ENC key is the published NXP key of the {facts.factory}",
            cause=(
                "These keys are public: an attacker on the bus can read and change the communication with the chip."
            ),
            advice=f"Replace them before you ship: {_PAGE}",
            for_a_person="the vendor's tool writes keys to the chip permanently",
        )
    else:
        yield DoctorFinding("doctor.channel", Topic.BUS, FindingSeverity.OK, f"{said}: own keys")


def _microchip(facts: BusFacts) -> Iterator[DoctorFinding]:
    for path, text in facts.microchip:
        for _start, written in _INTERFACE.findall(text):
            if (eight := _SEVEN_BITS.get(int(written, 16))) is not None:
                yield _fault(
                    "doctor.bus_address",
                    seen=f"{path}: interface = i2c,{written}; cryptoauthlib's notation is 0x{eight:02x}",
                    cause="The address is in 7-bit notation, but the library expects 8-bit notation.",
                    command=shlex.join(["sed", "-i", f"/interface/s/{written}/0x{eight:02x}/", path]),
                    advice="Use 8-bit notation",
                )
    store = facts.filestore
    if store is not None and not store.exists:
        yield _fault(
            "doctor.filestore_missing",
            seen=f"filestore = {store.path}: no such directory",
            cause=(
                "cryptoauthlib stores the description of its slots in this directory, and finds no token without it."
            ),
            command=shlex.join(["mkdir", "-p", store.path]),
            advice="Create it, and copy the slot's description (0.conf) to it",
        )
