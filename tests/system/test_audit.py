"""`birthmark server audit`: verified while the server runs and after it ended; a tampered file is named."""

import asyncio
import json
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

import warm
from birthmark.audit.signed_heads import AuditKey
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Changes, open_database
from support.server.servers import RunningServer, a_server, clean_environment, free_address

pytestmark = pytest.mark.system


def test_the_chain_is_verified_exported_and_found_out_when_it_was_edited(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        server.run("hub", "create", "hub-2", "--host", "hub2.example")
        (told,) = server.rows("server", "audit", "verify")
        assert told["rows"] == told["head"]["seq"] > 3
        server.run("server", "audit", "export", "--out", str(tmp_path / "head.json"))
        server.run("hub", "rm", "hub-2", "--yes")
        server.run("server", "audit", "verify", "--head", str(tmp_path / "head.json"))
        server.run("server", "audit", "export", "--rows", "--out", str(tmp_path / "rows.jsonl"))
        assert (tmp_path / "rows.jsonl").stat().st_mode & 0o077 == 0
        lines = server.run("server", "audit", "export", "--rows").stdout.splitlines()
        assert [json.loads(line)["seq"] for line in lines] == [*range(1, len(lines)), len(lines) - 1]
        assert json.loads(lines[-2])["action"] == "iothub.delete"
    server.run("server", "audit", "verify", "--head", str(tmp_path / "head.json"))
    database = sqlite3.connect(server.data / "birthmark.db")
    database.execute("DELETE FROM audit WHERE seq > 2")
    database.commit()
    database.close()
    refused = server.attempt("server", "audit", "verify")
    assert (refused.returncode, "audit.chain_cut" in refused.stderr) == (1, True)
    server.start()
    assert '"audit.break"' in server.log()
    assert "audit.break_found" in server.attempt("server", "audit", "verify").stderr
    refused = server.attempt("server", "audit", "verify", "--head", str(tmp_path / "head.json"))
    assert "audit.chain_cut" in refused.stderr or "audit.chain_contradicted" in refused.stderr
    server.stop()


def test_a_chain_that_lost_its_key_its_head_and_its_end_is_found_out_at_the_next_start(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        pass
    (server.data / "audit.seed").unlink()
    database = sqlite3.connect(server.data / "birthmark.db")
    database.execute("DELETE FROM audit WHERE seq > 2")
    database.execute("DELETE FROM audit_heads")
    database.commit()
    database.close()
    server.start()
    assert '"audit.break"' in server.log()
    assert "audit.break_found" in server.attempt("server", "audit", "verify").stderr
    server.stop()


async def write_as_another_worker(data: Path) -> None:
    key = AuditKey((data / "audit.seed").read_text().strip())
    database = await open_database(f"sqlite:///{data}/birthmark.db", SystemClock(), worker="w2", signer=key)
    await database.commit(Changes().audit("operator", "test.did", "thing"))
    await database.close()


def test_the_chains_of_several_workers_are_verified_and_exported(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        pass
    asyncio.run(write_as_another_worker(server.data))
    (told,) = server.rows("server", "audit", "verify")
    assert [one["chain"] for one in told["chains"]] == ["main", "w2"]
    assert told["rows"] == sum(one["rows"] for one in told["chains"]) == told["head"]["seq"] + 1
    assert server.run("server", "audit", "verify").stdout.count("digest") == 2
    file = tmp_path / "heads.json"
    server.run("server", "audit", "export", "--out", str(file))
    assert [json.loads(line)["chain"] for line in file.read_text().splitlines()] == ["main", "w2"]
    server.run("server", "audit", "verify", "--head", str(file))
    database = sqlite3.connect(server.data / "birthmark.db")
    database.execute("DELETE FROM audit WHERE chain = 'main'")
    database.execute("DELETE FROM audit_heads WHERE chain = 'main'")
    database.commit()
    database.close()
    refused = server.attempt("server", "audit", "verify")
    assert "The signed head of chain w2 confirms row" in refused.stderr
    server.start()
    assert '"audit.break"' in server.log()
    server.stop()


def test_another_database_is_verified_by_its_server(tmp_path: Path, postgres_url: str) -> None:
    with a_server(tmp_path, f'database = "{postgres_url}"\n') as server:
        (told,) = server.rows("server", "audit", "verify")
        assert told["rows"] == told["head"]["seq"] > 3
        assert len(server.run("server", "audit", "export", "--rows").stdout.splitlines()) == told["rows"] + 1


def test_a_file_that_is_no_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text("{}")
    refused = RunningServer(tmp_path, free_address()).attempt(
        "server", "audit", "verify", "--head", str(tmp_path / "head.json"), "--data", str(tmp_path)
    )
    assert refused.returncode in {1, 5}


def test_a_lost_ca_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        pass
    (server.data / "ca").rename(tmp_path / "ca.lost")
    with pytest.raises(RuntimeError, match=r"ca\.lost"):
        server.start()
    assert server.process is not None
    assert server.process.stdout is not None
    server.process.wait(10)
    server.process.stdout.close()
    server.process = None
    (tmp_path / "ca.lost").rename(server.data / "ca")
    server.start()
    server.stop()


def test_a_first_start_that_found_its_port_taken_leaves_a_chain_that_is_whole(tmp_path: Path) -> None:
    address = free_address()
    with socket.socket() as taken:
        taken.bind((address, 8883))
        taken.listen()
        command = [str(warm.programs() / "birthmark"), "serve", "--data", str(tmp_path / "data"), "--listen", address]
        failed = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    assert "net.port_taken" in failed.stderr
    with a_server(tmp_path) as server:
        assert server.rows("server", "audit", "verify")[0]["rows"] > 1


def test_who_changed_what_is_read_with_the_latest_last(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        server.run("pki", "user", "create", "line-1", "--any-name")
        server.run("pki", "user", "rm", "line-1", "--yes")
        rows = server.rows("server", "audit", "ls", "line-1")
        assert [row["action"] for row in rows] == ["est.user.add", "est.user.remove"]
        assert {row["actor"] for row in rows} == {"operator"}
        (last,) = server.rows("server", "audit", "ls", "--limit", "1")
        assert last == rows[-1]
        assert server.rows("server", "audit", "ls", "--where", "action=est.user.a*") == rows[:1]
        assert "intact" in server.run("server", "audit", "verify").stdout
