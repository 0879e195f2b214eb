"""A process that signs in a token by two libraries at once: awscrt's handshakes beside signatures of our own.

`python token_race.py DIRECTORY ROUNDS` with a software element in DIRECTORY; it prints how much of each was done.
With the third word `open` it ends while a connection of the SDK is still open; with `stopped` the library is stopped
below such a connection, as where a token has to be opened anew, and with `late` what the SDK had of the library before
is freed when the next one is in use.
"""

import asyncio
import sys
from pathlib import Path

from awscrt import http, io

from birthmark.device_transports.crt.https import CrtHttps
from birthmark.device_transports.crt.mqtt import CrtMqtt
from birthmark.device_transports.crt.tls import client_context
from birthmark.device_transports.identity_and_trust import ServerTrust, TokenIdentity, identity_of
from birthmark.keys.key_handle import KeyHandle, Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm, stop_library
from birthmark.mqtt.packets import Connect
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement
from support.mqtt.links_peer import GOOD, a_peer

_HANDSHAKES_AT_ONCE = 8


left_open: list[CrtMqtt] = []


async def main(directory: Path, rounds: int, *, leaves_one: bool) -> None:
    chip = SoftwareElement(directory, PROFILES["se050"], find_softhsm())
    with chip.open() as element:
        key, chain = element.key("0xF0000100"), element.chain("0xF0000100")
        identity = identity_of(key, chain, pin=Pin.from_file(chip.pin_file))
        assert isinstance(identity, TokenIdentity)
        async with a_peer() as peer:
            signing = asyncio.create_task(asyncio.to_thread(signatures, key, over := [False]))
            https = CrtHttps(identity, ServerTrust(peer.ca.certificate.pem()))
            for _ in range(rounds):
                asked = (https.request("GET", f"{peer.url}/who", headers={}) for _ in range(_HANDSHAKES_AT_ONCE))
                assert [answer.status for answer in await asyncio.gather(*asked)] == [418] * _HANDSHAKES_AT_ONCE
            if leaves_one:
                left_open.append(CrtMqtt(identity, ServerTrust(peer.ca.certificate.pem())))
                await left_open[0].connect("localhost", peer.port, Connect(GOOD))
            over[0] = True
            made = await signing
    sys.stdout.write(
        f"{rounds * _HANDSHAKES_AT_ONCE} handshakes beside {'many' if made > rounds else made} signatures\n"
    )


def signatures(key: KeyHandle, over: list[bool]) -> int:
    made = 0
    while not over[0]:
        key.sign(b"beside", Scheme.ECDSA_SHA256)
        made += 1
    return made


async def stopped(directory: Path, rounds: int) -> None:
    chip = SoftwareElement(directory, PROFILES["se050"], find_softhsm())
    async with a_peer() as peer:
        trust = ServerTrust(peer.ca.certificate.pem())
        live: CrtMqtt | None = None
        for _ in range(rounds):
            with chip.open() as element:
                key, chain = element.key("0xF0000100"), element.chain("0xF0000100")
                identity = identity_of(key, chain, pin=Pin.from_file(chip.pin_file))
                assert isinstance(identity, TokenIdentity)
                if live is not None:
                    await live.publish("still", b"there")
                    await live.close()
                live = CrtMqtt(identity, trust)
                await live.connect("localhost", peer.port, Connect(GOOD))
                key.sign(b"beside", Scheme.ECDSA_SHA256)
                stop_library()
                await live.publish("still", b"there")
    sys.stdout.write(f"{rounds} connections outlived their library\n")


async def late(directory: Path, rounds: int) -> None:
    """Free each context of a library that was stopped when the next one has a session by the same number."""
    chip = SoftwareElement(directory, PROFILES["se050"], find_softhsm())
    async with a_peer() as peer:
        before: list[io.ClientTlsContext] = []
        for _ in range(rounds):
            with chip.open() as element:
                key, chain = element.key("0xF0000100"), element.chain("0xF0000100")
                identity = identity_of(key, chain, pin=Pin.from_file(chip.pin_file))
                assert isinstance(identity, TokenIdentity)
                context = client_context(identity, ServerTrust(peer.ca.certificate.pem()))
                before.clear()
                await handshake(context, peer.port)
                before.append(context)
                del context
                stop_library()
    sys.stdout.write(f"{rounds} handshakes, with what was before freed late\n")


async def handshake(context: io.ClientTlsContext, port: int) -> None:
    options = context.new_connection_options()
    options.set_server_name("localhost")
    bootstrap = io.ClientBootstrap.get_or_create_static_default()
    made = http.HttpClientConnection.new("localhost", port, bootstrap, io.SocketOptions(), options)
    connection = await asyncio.wrap_future(made)
    await asyncio.wrap_future(connection.close())


if __name__ == "__main__":
    how = sys.argv[3] if len(sys.argv) > 3 else ""
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    match how:
        case "stopped":
            asyncio.run(stopped(path, count))
        case "late":
            asyncio.run(late(path, count))
        case _:
            asyncio.run(main(path, count, leaves_one=bool(how)))
