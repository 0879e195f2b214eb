"""What is sent along with a registration is JSON of a file, or it is said why not, before anybody is asked."""

from pathlib import Path

import pytest

from birthmark.agent.config import DpsSource
from birthmark.agent.identity_lifecycle import PayloadInvalidError, payload_of
from support.agent.world import CONFIG, World


def source_of(directory: Path) -> DpsSource:
    text = CONFIG.replace("[provisioning.att", f'payload = {{ uri = "file://{directory}/p.json" }}\n[provisioning.att')
    source = World(directory).config(text).source
    assert isinstance(source, DpsSource)
    return source


@pytest.mark.parametrize(("text", "payload"), [("{}", {}), ("[1]", [1]), ('"text"', "text"), ("null", None)])
def test_any_json_is_sent_along(tmp_path: Path, text: str, payload: object) -> None:
    (tmp_path / "p.json").write_text(text)
    assert payload_of(source_of(tmp_path)) == payload


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 20_000, b'"' + b"x" * 65_536 + b'"'])
def test_what_is_no_json_or_too_much_is_refused_with_its_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "p.json").write_bytes(raw)
    with pytest.raises(PayloadInvalidError) as refused:
        payload_of(source_of(tmp_path))
    assert f"{tmp_path}/p.json, set by provisioning.payload, cannot be sent" in refused.value.explain_cause()
    assert "not JSON" in refused.value.explain_cause()


async def test_without_its_file_nothing_is_registered(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = CONFIG.replace("[provisioning.att", f'payload = {{ uri = "file://{tmp_path}/p.json" }}\n[provisioning.att')
    with pytest.raises(PayloadInvalidError) as refused:
        await world.agent(text).apply()
    assert "no such file" in refused.value.explain_cause()
    assert world.registered == []
