"""``txstore put`` of whole trees, its ``--json``, what it keeps, and how fast it may be."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import stat
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cli_driver import after_ack, put, run, run_process

from txstore.cli.batch import Outcome
from txstore.cli.interrupts import Interruption
from txstore.cli.pace import Pace

KIB = 1024
FILES = {"a/1": b"one", "a/b/2": os.urandom(3 * KIB), "a/b/3": b"", "z": b"last"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four files, an empty folder, and what is no file."""
    top = tmp_path / "tree"
    for name, data in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    (top / "empty").mkdir()
    (top / "link").symlink_to("a")
    (top / "to-file").symlink_to("z")
    os.mkfifo(top / "pipe")
    return top


def stored(storage: Path) -> dict[str, bytes]:
    """Every file that a reader of the storage sees."""
    return {
        path.relative_to(storage).as_posix(): path.read_bytes()
        for path in storage.rglob("*")
        if path.is_file() and not path.relative_to(storage).parts[0].startswith(".")
    }


def below(folder: str) -> dict[str, bytes]:
    return {f"{folder}{name}": data for name, data in FILES.items()}


@pytest.mark.parametrize(
    ("name", "where"),
    [(None, "tree/"), ("new", "new/"), ("new/", "new/tree/"), ("a/b", "a/b/")],
)
def test_a_tree_is_kept(tree: Path, storage: Path, name: str | None, where: str) -> None:
    shown = run(*put(tree, storage, "-r", *(["--name", name] if name else [])))
    assert stored(storage) == below(where)
    assert shown.stdout.startswith("4 files: 4 stored, sent 3.0 KiB in ")
    assert shown.stdout.count("\n") == 1
    skipped = {line for line in shown.stderr.splitlines() if line.startswith("skipped")}
    assert skipped == {
        f"skipped {tree / name}: it is neither a file nor a folder"
        for name in ("link", "to-file", "pipe")
    }
    again = run(*put(tree, storage, "-r", "--quiet", *(["--name", name] if name else [])))
    assert again.output == ""


def test_the_current_folder_is_called_as_it_is(
    tree: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    run(*put(Path("."), storage, "-r"))
    assert stored(storage) == below("tree/")


def test_a_storage_in_the_tree_is_left_out(tree: Path) -> None:
    """It would grow for ever."""
    storage, working = tree / "storage", tree / "working"
    for _ in range(2):
        run(*put(tree, storage, "-r", "--working-dir", working))
    assert stored(storage) == below("tree/")


def test_trees_and_files_go_together_but_no_two_under_one_name(
    tree: Path, tmp_path: Path, storage: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tree").write_bytes(b"")
    run(*put(tree, storage, tree / "z", "-r"))
    assert stored(storage) == below("tree/") | {"z": b"last"}
    os.link(tree / "z", tmp_path / "other" / "z")
    shown = run(*put(tree / "z", storage, tmp_path / "other" / "z", "-r"), code=2)
    assert "would be stored as z" in shown.stderr


def test_a_folder_without_r_says_what_to_do(tree: Path, storage: Path) -> None:
    shown = run(*put(tree, storage, tree / "z"), code=1)
    assert "Is a directory. -r stores what is in it." in shown.stderr
    assert stored(storage) == {"z": b"last"}


def test_a_folder_that_cannot_be_read_is_an_error_and_the_others_are_stored(
    tree: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if path == str(tree / "a" / "b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("txstore.cli.sources.os.scandir", denied)
    shown = run(*put(tree, storage, "-r"), code=1)
    assert f"Error: cannot read {str(tree / 'a' / 'b')!r}: Permission denied." in shown.stderr
    assert set(stored(storage)) == {"tree/a/1", "tree/z"}


def test_a_tree_without_files_is_none(tmp_path: Path, storage: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(*put(tmp_path / "empty", storage, "-r")).stdout.startswith("0 files: sent 0 B")


# JSON


def lines_of(*arguments: Any, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, code=code).stdout.splitlines()]


def test_json_has_a_line_for_each_file(tree: Path, storage: Path) -> None:
    missing = tree / "missing"
    lines = lines_of(*put(tree, storage, missing, "-r", "--json", "--quiet"), code=1)
    assert {tuple(line) for line in lines} == {tuple(field.name for field in fields(Outcome))}
    by_name = {line["name"]: line for line in lines}
    assert by_name.pop("missing") == {
        "path": str(missing),
        "name": "missing",
        "status": "failed",
        "size": None,
        "sent": 0,
        "seconds": 0.0,
        "sha256": None,
        "error": f"cannot read {str(missing)!r}: No such file or directory.",
    }
    for name, data in below("tree/").items():
        line = by_name.pop(name)
        assert line["path"] == str(tree.parent / name)
        assert (line["status"], line["size"], line["sent"]) == ("stored", len(data), len(data))
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
    assert by_name == {}
    again = lines_of(*put(tree, storage, "-r", "--json"))
    assert {(line["status"], line["sent"]) for line in again} == {("already_stored", 0)}
    assert {line["sha256"] for line in again} == {line["sha256"] for line in lines} - {None}


def test_json_tells_of_an_interruption(tree: Path, storage: Path) -> None:
    interrupt = after_ack(2, "os.kill(os.getpid(), signal.SIGINT)")
    shown = run_process(*put(tree, storage, "-r", "--json"), setup=interrupt, code=130)
    states = [json.loads(line)["status"] for line in shown.stdout.splitlines()]
    assert states == ["stored", "stored", "interrupted"]


# Many small files, which are stored several at once


@pytest.fixture
def many(tmp_path: Path) -> Path:
    top = tmp_path / "many"
    top.mkdir()
    for number in range(40):
        (top / f"{number:02}").write_bytes(os.urandom(number))
    return top


def test_many_are_told_of_in_their_order(many: Path, storage: Path) -> None:
    (many / "20").unlink()
    (many / "20").symlink_to("nothing")
    (many / "21").chmod(0o600)
    files = sorted(many.iterdir())
    shown = run(*put(files[0], storage, *files[1:], "--json"), code=1)
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(path) for path in files]
    assert [line["path"] for line in lines if line["status"] != "stored"] == [str(many / "20")]
    assert shown.stderr.startswith(f"Error: {many / '20'} was not stored: cannot read")
    assert stored(storage) == {path.name: path.read_bytes() for path in files if path.name != "20"}
    assert stat.S_IMODE((storage / "21").stat().st_mode) == 0o600


def test_of_many_an_interruption_loses_none_that_was_stored(many: Path, storage: Path) -> None:
    interrupt = after_ack(10, "os.kill(os.getpid(), signal.SIGINT)")
    shown = run_process(*put(many, storage, "-r", "--json"), setup=interrupt, code=130)
    states = [json.loads(line)["status"] for line in shown.stdout.splitlines()]
    assert 10 <= states.count("stored") == len(states) - 1 < 40
    assert states[-1] == "interrupted"
    assert len(stored(storage)) == len(states) - 1
    again = lines_of(*put(many, storage, "-r", "--json"))
    assert [line["status"] for line in again].count("already_stored") == len(states) - 1
    assert len(stored(storage)) == 40


# What is kept


def test_without_preserve_a_file_is_as_new(tmp_path: Path, tree: Path, storage: Path) -> None:
    (tree / "z").chmod(0o600)
    os.utime(tree / "z", (1, 1))
    (tmp_path / "new").touch()
    new = (tmp_path / "new").stat()
    command = put(tree / "z", storage, "--no-preserve")
    run(*command)
    found = (storage / "z").stat()
    assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(new.st_mode)
    assert abs(found.st_mtime - new.st_mtime) < 60
    assert "already stored" in run(*command).stdout


# How fast


class Clock:
    """A clock that only waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_no_more_is_sent_than_the_rate_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(1000, Interruption())
    for _ in range(5):
        pace.wait()
        pace.sent(500)
    assert clock.now == pytest.approx(102.0)
    clock.now += 50
    for _ in range(3):  # the time in which nothing was sent is not made up for
        pace.wait()
        pace.sent(500)
    assert clock.now == pytest.approx(153.0)
    assert [pace.segment_size(size) for size in (10, 5000)] == [10, 1000]


def test_without_a_rate_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(None, Interruption())
    pace.sent(2**40)
    pace.wait()
    assert (clock.now, pace.segment_size(2**30)) == (100.0, 2**30)


def test_ctrl_c_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    interruption = Interruption()
    pace = Pace(1, interruption)
    pace.sent(1000)
    interruption.came = True
    with pytest.raises(KeyboardInterrupt):
        pace.wait()
    assert clock.now == 100.0


def test_the_rate_bounds_what_put_sends(
    tree: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("txstore.cli.pace._LOOK", 60)
    clock = Clock(monkeypatch)
    run(*put(tree, storage, "-r", "--limit-rate", "100"))
    total = sum(map(len, FILES.values()))
    assert (total - 100) / 100 <= clock.now - 100 <= total / 100
    assert stored(storage) == below("tree/")


def test_ctrl_c_between_two_messages_that_wait_is_heeded(
    tree: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    shown = run(*put(tree / "a" / "b" / "2", storage, "--limit-rate", "1KiB"), code=130)
    assert "the same command goes on from there" in shown.stderr
