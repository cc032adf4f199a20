"""``txstore verify``: what it prints, how it ends, and how it goes on after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_driver import run, run_process
from crew import last
from damage import rot

from txstore import FileStoreManager
from txstore.checks import KINDS

MIB = 1024 * 1024

#: The command is interrupted, or dies, once it has read so many pieces.
_STOP = """
import os, signal
from txstore.cli.commands.verify import _Run
real, count = _Run._reached, 0
def reached(self, size):
    global count
    count += 1
    if count == {pieces}:
        os.kill(os.getpid(), signal.{signal})
    real(self, size)
_Run._reached = reached
from txstore.cli import remembered
remembered._INTERVAL = 0.0
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command remembers how far it was."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        for number in range(5):
            data = bytes([number]) * 100
            store.store_segment(last(f"file{number}", 1, data, f"file{number}", data))
    return storage


def read(*args: object, code: int = 0) -> list[str]:
    """The names of the files that were read."""
    shown = run("verify", "--json", *args, code=code)
    return [json.loads(line)["name"] for line in shown.stdout.splitlines()]


def test_it_says_that_nothing_is_wrong(storage: Path) -> None:
    shown = run("verify", "--storage-dir", storage)
    assert shown.stdout == "5 files, 500 B: nothing is wrong.\n"
    assert run("verify", "--storage-dir", storage, "--quiet").output == ""


def test_it_tells_each_finding_and_what_to_do(storage: Path) -> None:
    rot(storage / "file1")
    (storage / "file2").unlink()
    (storage / "file3").write_bytes(b"another")
    shown = run("verify", "--storage-dir", storage, code=1)
    assert [line.split(":")[0] for line in shown.stdout.splitlines()[::2]] == [
        *("stored-damaged", "stored-missing", "stored-changed"),
        "5 files, 500 B",
    ]
    assert KINDS["stored-damaged"].remedy in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith(": 3 findings.")


def test_it_reads_the_files_that_are_named(storage: Path) -> None:
    rot(storage / "file1")
    run("verify", "file0", "./file2", "--storage-dir", storage)
    assert read("file1", "--storage-dir", storage, code=1) == ["file1"]
    (storage / "stranger").write_bytes(b"x")
    shown = run("verify", "stranger", "--storage-dir", storage, code=1)
    assert shown.stdout.startswith("stored-unknown: Nothing is known of 'stranger'")
    shown = run("verify", "../outside", "--storage-dir", storage, code=2)
    assert "../outside" in shown.stderr


def test_it_tells_programs_in_json(storage: Path) -> None:
    rot(storage / "file1")
    shown = run("verify", "--storage-dir", storage, "--json", code=1)
    found = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [set(one) for one in found] == [{"name", "size", "sha256", "stored_at", "finding"}] * 5
    assert found[0]["finding"] is None
    assert found[1]["finding"]["kind"] == "stored-damaged"


def test_it_has_a_code_of_its_own_where_it_cannot_look(tmp_path: Path) -> None:
    shown = run("verify", "--storage-dir", tmp_path / "nothing", code=2)
    assert shown.stderr.startswith("Error: there is no store here:")


def test_it_writes_nothing_into_the_store(storage: Path) -> None:
    paths = [storage, *storage.rglob("*")]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}
    run("verify", "--storage-dir", storage)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths} == before


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_it_goes_on_after_an_interruption(
    storage: Path, state: Path, signal: str, code: int
) -> None:
    rot(storage / "file0")
    setup = _STOP.format(pieces=3, signal=signal)
    stopped = run_process("verify", "--storage-dir", storage, setup=setup, code=code)
    assert "stored-damaged" in stopped.stdout
    if code == 130:
        assert "Interrupted after 2 files." in stopped.stderr
    shown = run("verify", "--storage-dir", storage, code=1)
    assert "going on: 2 files, 200 B, were read before" in shown.stderr
    assert shown.stdout == "5 files, 500 B: 1 finding.\n"
    assert list((state / "txstore").iterdir()) == []
    assert len(read("--storage-dir", storage, code=1)) == 5


def test_it_begins_anew_if_told_to(storage: Path) -> None:
    setup = _STOP.format(pieces=3, signal="SIGINT")
    run_process("verify", "--storage-dir", storage, setup=setup, code=130)
    assert read("file0", "--storage-dir", storage) == ["file0"], "which changes nothing of that"
    assert len(read("--storage-dir", storage, "--restart")) == 5


def test_what_is_remembered_may_be_torn_or_not_be_written(storage: Path, state: Path) -> None:
    setup = _STOP.format(pieces=3, signal="SIGINT")
    run_process("verify", "--storage-dir", storage, setup=setup, code=130)
    [file] = (state / "txstore").iterdir()
    file.write_bytes(bytes(10))
    assert len(read("--storage-dir", storage)) == 5
    (state / "txstore").rmdir()
    state.rmdir()
    state.write_text("no folder")
    assert len(read("--storage-dir", storage)) == 5


def test_the_rate_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileStoreManager(tmp_path / "storage") as store:
        data = os.urandom(3 * MIB)
        store.store_segment(last("one", 1, data, "one", data))
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        slept.append(seconds)

    monkeypatch.setattr("txstore.cli.pace.time.monotonic", lambda: now[0])
    monkeypatch.setattr("txstore.cli.pace.time.sleep", sleep)
    run("verify", "--storage-dir", tmp_path / "storage", "--limit-rate", "1MiB")
    assert sum(slept) == pytest.approx(3.0)
