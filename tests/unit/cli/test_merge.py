"""Several stations' bundles as one."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from birthmark.cli.manifest import FileNames, ManifestOptions, count_entries, extract
from birthmark.cli.manifest_merge import StationsOptions, merge
from birthmark.cli.output.bulk_summary import Refusals
from birthmark.cli.output.command_output import FileExistsAlreadyError
from birthmark.manifests.bundle import verifier
from birthmark.manifests.bundle.verifier import verify_file
from support.chips.intake_world import Line, a_chip, verified
from support.pki.pki_builders import a_device


@pytest.fixture
def stations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StationsOptions:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["birthmark", "manifest", "merge"])
    Line(Path("north")).sealed(2, "north")
    Line(Path("south")).sealed(3, "south")
    return StationsOptions([Path("north/station.pem"), Path("south/station.pem")])


NORTH, SOUTH = Path("north/intake-0001.jsonl"), Path("south/intake-0001.jsonl")


def test_each_line_stays_as_its_station_wrote_it(stations: StationsOptions) -> None:
    merge(stations, [NORTH, SOUTH], Path("all.jsonl"), as_json=True)
    assert Path("all.jsonl").read_bytes() == NORTH.read_bytes() + SOUTH.read_bytes()
    found = ManifestOptions(Path("all.jsonl"), stations=stations).verified(Refusals(as_json=False))
    assert [one.unique_id for one in found] == ["NORTH-0", "NORTH-1", "SOUTH-0", "SOUTH-1", "SOUTH-2"]
    assert count_entries(Path("all.jsonl")) == 5


def test_what_was_merged_is_merged_again(stations: StationsOptions) -> None:
    merge(stations, [NORTH], Path("some.jsonl"), as_json=True)
    merge(stations, [Path("some.jsonl"), SOUTH], Path("all.jsonl"), as_json=True)
    assert verified(Path("all.jsonl").read_bytes().splitlines(), stations.trust()).count("manifest.malformed") == 0


def refused(stations: StationsOptions, capsys: pytest.CaptureFixture[str], *files: Path) -> list[dict[str, str]]:
    with pytest.raises(typer.Exit) as ended:
        merge(stations, list(files), Path("all.jsonl"), as_json=True)
    assert ended.value.exit_code == 7
    assert [path.name for path in Path().iterdir() if "all" in path.name] == []
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_chip_that_is_at_two_stations_is_named_in_both(
    stations: StationsOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    chip = a_chip("traveller")
    Line(Path("north")).take(chip, "N-9")
    Line(Path("north")).seal()
    Line(Path("south")).take(chip, "S-9")
    Line(Path("south")).seal()
    second = [path.with_name("intake-0002.jsonl") for path in (NORTH, SOUTH)]
    (row,) = refused(stations, capsys, NORTH, *second)
    assert (
        row["cause"] == f"Entry 1 of {second[1]} (board S-9) is a duplicate: entry 1 of {second[0]} has the same chip."
    )


def test_a_board_that_is_at_two_stations_is_named_in_both(
    stations: StationsOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("north", "south"):
        Line(Path(place)).take(a_chip(place), "X-1")
        Line(Path(place)).seal()
    second = [path.with_name("intake-0002.jsonl") for path in (NORTH, SOUTH)]
    (row,) = refused(stations, capsys, *second)
    assert (
        row["cause"] == f"Entry 1 of {second[1]} (board X-1) is a duplicate: entry 1 of {second[0]} has the same board."
    )


def test_an_open_bundle_is_not_merged(stations: StationsOptions, capsys: pytest.CaptureFixture[str]) -> None:
    Line(Path("south")).take(a_chip("late"), "S-9")
    (row,) = refused(stations, capsys, NORTH, SOUTH.with_name("intake-0002.jsonl"))
    assert row["error"] == "manifest.not_whole"


def test_a_station_that_nobody_named_is_not_merged(
    stations: StationsOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stations.station is not None
    known = StationsOptions(stations.station[:1])
    assert {row["error"] for row in refused(known, capsys, NORTH, SOUTH)} == {"manifest.station_unknown"}


def test_an_existing_file_is_not_overwritten(stations: StationsOptions) -> None:
    with pytest.raises(FileExistsAlreadyError):
        merge(stations, [NORTH], SOUTH, as_json=True)


def test_a_name_that_a_maker_chose_leads_out_of_no_directory(stations: StationsOptions) -> None:
    Line(Path("north")).take(a_chip("../../evil/.x"), "N-9")
    Line(Path("north")).seal()
    shipped = ManifestOptions(NORTH.with_name("intake-0002.jsonl"), stations=stations)
    extract(shipped, Path("out"))
    assert [path.name for path in Path("out").iterdir()] == ["_._.._evil_.x.pem"]


def test_devices_whose_names_become_one_have_a_file_each(stations: StationsOptions) -> None:
    line, names = Line(Path("north")), ["pump_1", "pump 1", "pump/1", "PUMP_1"]
    for number, name in enumerate(names):
        line.take(a_chip(name), f"N-{number + 20}")
    line.seal()
    extract(ManifestOptions(NORTH.with_name("intake-0002.jsonl"), stations=stations), Path("out"))
    files = ["PUMP_1-4.pem", "pump_1-2.pem", "pump_1-3.pem", "pump_1.pem"]
    assert sorted(path.name for path in Path("out").iterdir()) == files
    assert len({path.read_text() for path in Path("out").iterdir()}) == len(names)


def test_files_are_named_by_the_chip_where_that_is_asked_for(
    stations: StationsOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(Path("north"))
    line.take(a_chip("pump-1"), "N-20")
    line.seal()
    shipped = ManifestOptions(NORTH.with_name("intake-0002.jsonl"), as_json=True, stations=stations)
    extract(shipped, Path("out"), named_by=FileNames.UNIQUE_ID)
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [path.name for path in Path("out").iterdir()] == [f"{row['unique_id']}.pem"]
    assert row["device"] == "pump-1"


def test_a_link_that_somebody_put_in_the_place_of_a_file_is_not_followed(stations: StationsOptions) -> None:
    Path("precious").write_text("kept")
    Path("out").mkdir()
    for name in ("planted.pem", ".planted.pem.new"):
        Path("out", name).symlink_to(Path("precious").absolute())
    Line(Path("north")).take(a_chip("planted"), "N-9")
    Line(Path("north")).seal()
    for _ in range(2):  # again, over its own files
        extract(ManifestOptions(NORTH.with_name("intake-0002.jsonl"), stations=stations), Path("out"))
        assert Path("precious").read_text() == "kept"
        assert "BEGIN CERTIFICATE" in Path("out/planted.pem").read_text()
        assert [path.name for path in Path("out").iterdir()] == ["planted.pem"]


def test_a_device_vouches_for_no_list(tmp_path: Path) -> None:
    device = tmp_path / "device.pem"
    device.write_text(a_device(common_name="device-1").certificate.pem())
    with pytest.raises(typer.BadParameter, match="is not a CA"):
        list(StationsOptions(trust_root=[device]).roots())


def test_two_who_merge_into_one_file_write_one_each_and_the_first_counts(
    stations: StationsOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = NORTH.read_bytes() + SOUTH.read_bytes()
    begun = verify_file

    def beside_another(*given: Any) -> Any:
        monkeypatch.setattr(verifier, "verify_file", begun)
        merge(stations, [NORTH, SOUTH], Path("all.jsonl"), as_json=True)
        return begun(*given)

    monkeypatch.setattr(verifier, "verify_file", beside_another)
    with pytest.raises(FileExistsAlreadyError):
        merge(stations, [SOUTH], Path("all.jsonl"), as_json=True)
    assert Path("all.jsonl").read_bytes() == whole
    assert [path.name for path in Path().iterdir() if "all" in path.name] == ["all.jsonl"]


def test_a_merged_bundle_is_as_readable_as_any_other_file(stations: StationsOptions) -> None:
    merge(stations, [NORTH], Path("all.jsonl"), as_json=True)
    Path("other").touch()
    assert Path("all.jsonl").stat().st_mode == Path("other").stat().st_mode
