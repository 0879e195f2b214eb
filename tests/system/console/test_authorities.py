"""*CA certificates* by HTTP: those of hubs and provisioning services, as text, with the command that proves one."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from support.console.people import ServerServices, said
from support.pki.pki_builders import a_ca
from support.server.servers import a_server

pytestmark = pytest.mark.system
PAGE = "/certificates/authorities"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("authorities")) as server:
        yield ServerServices(server)


def test_where_no_ca_is_the_page_names_the_command_that_puts_one_on_record(rooms: ServerServices) -> None:
    words = said(rooms.person("anna").get(PAGE).text)
    assert "No CA certificates yet." in words
    assert "birthmark hub ca create my-ca root.pem --hub birthmark" in words
    assert "birthmark dps ca create my-ca root.pem --dps birthmark" in words


def test_cas_are_shown_with_what_they_wait_for(rooms: ServerServices) -> None:
    berta = rooms.person("berta")
    pem = a_ca("<b>Factory</b>", now=datetime.now(UTC)).certificate.pem()
    rooms.asked("POST", "/hubs/birthmark/cas", {"name": "factory", "certificate": pem})
    rooms.asked("POST", "/dps/birthmark/cas", {"name": "supplier", "certificate": pem, "verified": True})
    page = berta.get(PAGE).text
    assert "<b>Factory</b>" not in page
    words = said(page)
    assert words.count("Factory") == 2
    assert "birthmark hub ca code factory --hub birthmark" in words
    assert "birthmark dps ca code supplier" not in words
    assert "not verified" in words


def test_a_devices_page_has_its_modules_and_the_certificates_by_which_it_was_known(rooms: ServerServices) -> None:
    thumbprint = "ab" * 32
    rooms.asked("POST", "/hubs/birthmark/devices", {"device_id": "gateway", "thumbprint": thumbprint})
    rooms.asked("POST", "/hubs/birthmark/modules/gateway", {"module_id": "camera"})
    words = said(rooms.person("clara").get("/devices/gateway").text)
    for text in ("Modules", "camera", "a key", "Certificate history in this hub (1)", "enrolled"):
        assert text in words, text
    (row,) = rooms.server.rows("hub", "device", "thumbprints", "gateway")
    assert (row["thumbprint"], row["now"], row["how"]) == (thumbprint, "primary", "put on record")


def test_who_may_look_at_one_hub_sees_that_one(rooms: ServerServices) -> None:
    rooms.asked("POST", "/people/users", {"name": "dirk", "role": "viewer", "place": "hub/birthmark"})
    words = said(rooms.invited("dirk").get(PAGE).text)
    assert "Hub birthmark" in words
    assert "Provisioning service" not in words
