"""What every way of a TLS pipe keeps: on the library's own calls, and by pyOpenSSL's public objects."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import cast

import cryptography
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.net import accepted_connection, tls, tls_pipe, tls_pipe_cffi, tls_pipe_pyopenssl
from birthmark.net.listener import Listeners
from birthmark.net.listener_limits import Limits
from birthmark.net.tls import TlsPeer, peer_of, server_context
from birthmark.net.tls_pipe import TlsBrokenError, TlsEndedError, TlsPipe, TlsPipeFactory
from birthmark.pki import certificate_profiles
from support.pki.pki_builders import Holder, a_burdensome_key, a_ca, a_device

NOW = SystemClock().now()
ROOT = a_ca(now=NOW)
SERVER = a_device(ROOT, "server.example", profile=certificate_profiles.SERVER, now=NOW)
ISSUER = a_ca("Issuer", parent=ROOT, profile=certificate_profiles.ISSUING_CA, now=NOW)
DEVICE = a_device(ISSUER, now=NOW)
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(params=[tls_pipe_cffi, tls_pipe_pyopenssl], ids=["library", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TlsPipeFactory:
    for module in (tls, accepted_connection):
        monkeypatch.setattr(module, "WAY", request.param)
    return cast("TlsPipeFactory", request.param)


@pytest.fixture(params=[V12, V13], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion(request.param)


def server_pipe(way: TlsPipeFactory) -> TlsPipe:
    return way.accept(server_context([SERVER.certificate.parsed, ROOT.certificate.parsed], SERVER.private_key))


def client_context(directory: Path, *shown: Holder, version: ssl.TLSVersion = V13) -> ssl.SSLContext:
    """A client that trusts our root and shows these certificates, the first with its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=ROOT.certificate.pem())
    if shown:
        path = directory / "client.pem"
        path.write_text("".join(one.certificate.pem() for one in shown) + shown[0].key_pem)
        context.load_cert_chain(path)
    return context


class Client:
    """The client's side in memory; `meet` carries bytes until nobody has more to say."""

    def __init__(self, context: ssl.SSLContext, server: TlsPipe, **options: object) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, **options)  # type: ignore[arg-type]  # options by name
        self.server = server
        self.is_met = False

    def meet(self, chunk: int = tls_pipe.RECORD_BYTES) -> "Client":
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            while said := self._out.read(chunk):
                self.server.feed(said)
                self.is_met = self.is_met or self.server.handshake()
            self._in.write(self.server.drain())
        return self

    def send(self, data: bytes) -> bytes:
        """Return what arrives at the server."""
        self.tls.write(data)
        got = b""
        while said := self._out.read(tls_pipe.RECORD_BYTES):
            self.server.feed(said)
            while plain := self.server.read():
                got += plain
        return got

    def receive(self) -> bytes:
        self._in.write(self.server.drain())
        got = b""
        try:
            while plain := self.tls.read(65536):
                got += plain
        except ssl.SSLWantReadError:
            pass
        return got


def test_a_handshake_proves_who_the_client_is(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    context = client_context(tmp_path, DEVICE, ISSUER, version=version)
    server = Client(context, server_pipe(way), server_hostname="hub.example").meet().server
    peer = peer_of(server)
    assert (peer.leaf, peer.chain) == (DEVICE.certificate, (ISSUER.certificate,))
    assert (peer.sni, peer.version) == ("hub.example", {V12: "TLSv1.2", V13: "TLSv1.3"}[version])


def test_a_key_whose_signatures_are_a_burden_is_refused_before_one_is_checked(
    way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    unauthenticated = a_device(key=a_burdensome_key())
    with pytest.raises(TlsBrokenError, match="certificate verify failed"):
        Client(client_context(tmp_path, unauthenticated, version=version), server_pipe(way)).meet()


def test_an_rsa_key_as_others_have_is_taken(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    device = a_device(key=rsa.generate_private_key(65537, 2048))
    client = Client(client_context(tmp_path, device, version=version), server_pipe(way)).meet()
    assert peer_of(client.server).leaf == device.certificate


def test_a_certificate_is_asked_for_and_not_required(
    way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    client = Client(client_context(tmp_path, version=version), server_pipe(way)).meet()
    peer = peer_of(client.server)
    assert client.is_met
    assert (peer.leaf, peer.chain, peer.sni) == (None, (), "")


def test_a_handshake_in_pieces_of_one_byte(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path, DEVICE, version=version), server_pipe(way)).meet(chunk=1)
    assert client.is_met
    assert peer_of(client.server).leaf == DEVICE.certificate


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["mqtt", "x-amzn-mqtt-ca"], b"x-amzn-mqtt-ca"),
        (["h2", "http/1.1"], b"http/1.1"),
        (["h2", "acme-tls/1"], b""),
        ([], b""),
    ],
)
def test_alpn_is_chosen_in_our_order_and_never_fails(
    way: TlsPipeFactory, offered: list[str], chosen: bytes, tmp_path: Path
) -> None:
    context = client_context(tmp_path)
    if offered:
        context.set_alpn_protocols(offered)
    client = Client(context, server_pipe(way)).meet()
    assert (client.is_met, client.server.alpn()) == (True, chosen)


def test_our_order_of_ciphers_counts(way: TlsPipeFactory, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path), server_pipe(way)).meet()
    assert client.tls.cipher()[0] == "TLS_AES_128_GCM_SHA256"  # type: ignore[index]  # it is there after a handshake


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 300_000])
def test_bytes_go_both_ways_whatever_their_number(way: TlsPipeFactory, size: int, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path), server_pipe(way)).meet()
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert client.send(data) == data
    for kind in (bytes, bytearray, memoryview):
        for at in range(0, size, tls_pipe.RECORD_BYTES):
            client._in.write(client.server.seal(kind(data[at : at + tls_pipe.RECORD_BYTES])))
        assert client.receive() == data


def test_a_pipe_is_dry_when_all_that_came_is_read(way: TlsPipeFactory, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path), server_pipe(way)).meet()
    assert client.send(b"first") == b"first"
    for text in (b"one", b"two"):
        client.tls.write(text)
    records = client._out.read()
    client.server.feed(records[:-1])
    assert client.server.read() == b"one"
    assert not client.server.is_dry
    assert client.server.read() == b""
    client.server.feed(records[-1:])
    assert client.server.read() == b"two"
    assert client.server.is_dry is ("tls_pipe_cffi" in str(way))  # the other does not know
    assert client.server.read() == b""


def test_nothing_to_read_and_nothing_to_send_is_no_error(way: TlsPipeFactory, tmp_path: Path) -> None:
    server = Client(client_context(tmp_path), server_pipe(way)).meet().server
    assert (server.read(), server.drain()) == (b"", b"")


def test_close_notify_is_told_from_more_to_come(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path, version=version), server_pipe(way)).meet()
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.server.feed(client._out.read())
    with pytest.raises(TlsEndedError):
        client.server.read()
    client.server.shutdown()
    client._in.write(client.server.drain())
    client.tls.unwrap()  # raises unless ours came


def test_plain_text_is_named_and_the_next_connection_does_not_hear_of_it(way: TlsPipeFactory, tmp_path: Path) -> None:
    broken = server_pipe(way)
    broken.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(TlsBrokenError) as caught:
        broken.handshake()
    assert "http request" in caught.value.queue[0][-1]
    assert broken.leaf() is None
    assert Client(client_context(tmp_path), server_pipe(way)).meet().send(b"hello") == b"hello"


def test_a_record_that_was_changed_on_the_way_is_no_data(way: TlsPipeFactory, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path), server_pipe(way)).meet()
    client.tls.write(b"hello")
    record = client._out.read()
    client.server.feed(record[:-1] + bytes([record[-1] ^ 1]))
    with pytest.raises(TlsBrokenError, match=r"mac|decrypt"):
        client.server.read()


def test_a_client_that_does_not_trust_us_says_so(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    context = client_context(tmp_path, version=version)
    context.load_verify_locations(cadata=a_ca("another").certificate.pem())
    unauthenticated = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unauthenticated.check_hostname = False
    unauthenticated.maximum_version = version
    client = Client(unauthenticated, server_pipe(way))
    with pytest.raises(ssl.SSLCertVerificationError):
        client.meet()
    client.server.feed(client._out.read())
    with pytest.raises(TlsBrokenError, match="unknown ca"):
        client.server.handshake()


def test_a_session_is_never_resumed(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    context = client_context(tmp_path, DEVICE, version=version)
    made = server_context([SERVER.certificate.parsed], SERVER.private_key)
    first = Client(context, way.accept(made)).meet()
    first._in.write(first.server.seal(b"x"))
    first.receive()  # the tickets of 1.3 come with it
    again = Client(context, way.accept(made), session=first.tls.session).meet()
    assert again.is_met
    assert again.tls.session_reused is False
    assert peer_of(again.server).leaf == DEVICE.certificate


def test_tls_unique_is_the_clients_in_1_2(way: TlsPipeFactory, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path, version=V12), server_pipe(way)).meet()
    peer = peer_of(client.server)
    assert peer.tls_unique == client.tls.get_channel_binding("tls-unique")
    assert peer.exported_binding() is None


def test_the_exported_binding_is_the_clients_in_1_3(way: TlsPipeFactory) -> None:
    far = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    far.set_connect_state()
    near = server_pipe(way)
    for _ in range(4):
        try:
            far.do_handshake()
        except SSL.WantReadError:
            pass
        try:
            near.feed(far.bio_read(65536))
        except SSL.WantReadError:
            pass
        near.handshake()
        if said := near.drain():
            far.bio_write(said)
    peer = peer_of(near)
    assert peer.exported_binding() == far.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    assert peer.tls_unique is None


def test_a_pipe_may_be_closed_twice_and_is_silent_then(way: TlsPipeFactory, tmp_path: Path) -> None:
    client = Client(client_context(tmp_path, DEVICE, version=V12), server_pipe(way)).meet()
    peer = peer_of(client.server)
    client.server.close()
    client.server.close()
    assert peer.leaf == DEVICE.certificate
    assert peer.tls_unique in {None, client.tls.get_channel_binding("tls-unique")}


class Echo(asyncio.Protocol):
    """Says back what it hears; `bye` ends it."""

    def __init__(self, peer: TlsPeer) -> None:
        self.peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]  # a transport that writes
        if data.endswith(b"bye"):
            self.transport.close()


async def test_a_listener_serves_by_either(way: TlsPipeFactory, version: ssl.TLSVersion, tmp_path: Path) -> None:
    refused: list[BirthmarkError] = []
    context = client_context(tmp_path, DEVICE, version=version)
    made = server_context([SERVER.certificate.parsed], SERVER.private_key)
    data = b"0123456789" * 50_000 + b"bye"

    async def talk() -> tuple[bytes, list[bytes]]:
        listeners = Listeners(SystemClock(), Limits(), lambda error, _address, _peer: refused.append(error))
        peers: list[TlsPeer] = []

        def make(peer: TlsPeer) -> Echo:
            peers.append(peer)
            return Echo(peer)

        await listeners.listen(["127.0.0.1"], 0, lambda: made, {"http": make})
        port = listeners.doors[0].port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(data)
        heard = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        await listeners.close()
        return heard, [peer.leaf.der for peer in peers if peer.leaf is not None]

    assert (await talk()) == (data, [DEVICE.certificate.der])
    assert not refused


class Teller(asyncio.Protocol):
    """Says the same to everybody who speaks, and ends."""

    SAID = b"0123456789abcdef" * 4096

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.SAID)  # type: ignore[attr-defined]  # a transport that writes
        self.transport.close()


async def test_a_client_that_asks_for_small_fragments_gets_everything(
    way: TlsPipeFactory, version: ssl.TLSVersion
) -> None:
    made = server_context([SERVER.certificate.parsed], SERVER.private_key)
    listeners = Listeners(SystemClock(), Limits(), lambda _error, _address, _peer: None)
    await listeners.listen(["127.0.0.1"], 0, lambda: made, {"http": lambda _peer: Teller()})
    port = listeners.doors[0].port
    options = ["-quiet", "-ign_eof", "-maxfraglen", "512", {V12: "-tls1_2", V13: "-tls1_3"}[version]]
    client = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{port}",
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    heard, _ = await asyncio.wait_for(client.communicate(b"GET / HTTP/1.1\r\n\r\n"), 20)
    await listeners.close()
    assert heard == Teller.SAID


def test_the_fast_way_is_taken_where_it_was_tested() -> None:
    assert tls.choose_implementation() is tls_pipe_cffi


def test_another_version_takes_the_public_way_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cryptography, "__version__", "51.0.0")
    caplog.set_level(logging.INFO)
    assert tls.choose_implementation() is tls_pipe_pyopenssl
    assert [record.message for record in caplog.records] == ["tls.public_way"]
