"""*Jobs* by HTTP: listed and shown for who may look, as text whatever devices say; paused, resumed and canceled."""

from collections.abc import Iterator

import pytest

from support.console.people import ServerServices, said
from support.console.world import HOSTILE, jobs_of
from support.server.servers import a_server

pytestmark = pytest.mark.system
ONE = "/jobs/update-2"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("jobs")) as server:
        yield ServerServices(server)


@pytest.fixture(scope="module", autouse=True)
def _empty_first(rooms: ServerServices) -> None:
    """Look at the page while there is no job, and have some then."""
    words = said(rooms.person("early").get("/jobs").text)
    assert "No jobs yet." in words
    assert "birthmark aws job create --help" in words
    jobs_of(rooms.server, rooms.asked)


def test_jobs_are_listed_with_how_they_stand(rooms: ServerServices) -> None:
    words = said(rooms.person("anna").get("/jobs").text)
    for text in ("update-2", "paused", "interval-5", "in progress"):
        assert text in words, text


def test_a_job_shows_how_far_it_is_and_why_it_failed_as_text(rooms: ServerServices) -> None:
    page = rooms.person("berta").get(ONE).text
    assert HOSTILE[0] not in page
    words = said(page)
    for text in ("9 of 12 things have finished", "no room", "too old", HOSTILE[0], "press-8", "41.7%"):
        assert text in words, text
    assert page.count("<svg") == 3  # of which the style sheet shows the one that fits
    assert 'hx-trigger="every 2s"' in page


def test_the_things_of_one_state_are_shown_alone(rooms: ServerServices) -> None:
    carla = rooms.person("carla")
    words = said(carla.get(f"{ONE}?status=REJECTED").text)
    assert "Things: rejected by the device" in words
    assert "press-8 rejected by the device" in words
    assert "succeeded 1" not in words
    assert carla.get(f"{ONE}?status=nonsense").status_code == 200
    assert "nobody-made-it" in said(carla.get("/jobs/nobody-made-it").text)


def test_a_job_is_resumed_paused_and_canceled_by_its_page(rooms: ServerServices) -> None:
    dora = rooms.person("dora", "operator")
    for deed, told, status in (
        ("resume", "The job is resumed.", "IN_PROGRESS"),
        ("pause", "No new executions start", "IN_PROGRESS"),
        ("cancel", "canceled", "CANCELED"),
    ):
        page = dora.submit(ONE, ONE, deed=deed)
        assert told in said(dora.get(page.headers["location"]).text)
        known = rooms.asked("GET", "/aws/jobs/update-2")
        assert (known["status"], known["paused"] is None) == (status, deed == "resume")
    assert "Job control" not in dora.get(ONE).text


def test_whoever_may_only_look_is_offered_nothing_to_do(rooms: ServerServices) -> None:
    emil = rooms.person("emil")
    page = emil.get("/jobs/interval-5")
    assert page.status_code == 200
    assert "Job control" not in page.text
    token = emil.fields("/", "/signout")["csrf"]
    assert emil.post("/jobs/interval-5", {"deed": "cancel", "csrf": token}).status_code == 403
    assert rooms.asked("GET", "/aws/jobs/interval-5")["status"] == "IN_PROGRESS"


def test_whoever_has_no_role_at_aws_is_told_whose_they_are(rooms: ServerServices) -> None:
    rooms.asked("POST", "/people/users", {"name": "franz", "role": "operator", "place": "hub/birthmark"})
    franz = rooms.invited("franz")
    assert "Only users with a role at AWS can view jobs." in said(franz.get("/jobs").text)
    assert franz.get(ONE).status_code == 403
