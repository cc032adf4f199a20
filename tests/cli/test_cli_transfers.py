"""``txstore ls``, ``info``, ``cancel`` and ``files``: what there is, and which ones are meant."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_driver import run, run_process
from support import claim

from txstore import FileStoreManager
from txstore.cli.commands import ls
from txstore.cli.table import beginnings, cut, table, width_of_stdout
from txstore.cli.transfers import expires_at
from txstore.testing import segment

IDS = ["one", "other-1", "other-10", "report"]


@pytest.fixture
def storage(storage: Path) -> Path:
    """A store with a stored file, and a transfer for each of the ids."""
    with FileStoreManager(storage) as store:
        for number, file_id in enumerate(IDS, 1):
            store.store_segment(segment(1, b"x" * number, file_id))
        store.store_segment(segment(1, b"whole", "done", **claim(b"whole", "a/stored.txt")))
    return storage


def left(storage: Path) -> list[str]:
    with FileStoreManager(storage) as store:
        return [transfer.file_id for transfer in store.transfers()]


# info


def test_info_tells_all_of_one(storage: Path) -> None:
    lines = run("info", "rep", "--storage-dir", storage).stdout.splitlines()
    told = {line[:10].strip(): line[12:] for line in lines}
    assert told["ID"] == "report"
    assert told["Name"] == "not known"
    assert (told["State"], told["Received"], told["Segments"]) == ("receiving", "4 B", "1")
    assert told["SHA-256"] == hashlib.sha256(b"xxxx").hexdigest()
    assert told["Began"].endswith("s ago")
    assert told["Expires in"] == "6 days"


def test_info_knows_what_was_stored_lately(storage: Path) -> None:
    found = json.loads(run("info", "done", "--storage-dir", storage, "--json").stdout)
    assert (found["state"], found["name"], found["size"]) == ("stored", "a/stored.txt", 5)
    assert found["expires_at"] is None
    lines = run("info", "done", "--storage-dir", storage).stdout
    assert "5 B of 5 B (100 %)" in lines
    assert "Expires in  never" in lines


@pytest.mark.parametrize(
    ("file_id", "words"),
    [
        ("nothing", "no transfer nothing is known"),
        ("o", "o is the beginning of 3 ids: one, other-1, other-10. Say more of it."),
        ("a/b", "a/b"),
    ],
)
def test_info_of_what_is_not_there_is_an_error_in_words(
    storage: Path, file_id: str, words: str
) -> None:
    assert words in run("info", file_id, "--storage-dir", storage, code=1).stderr


def test_of_many_ids_that_are_meant_some_are_named(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        for number in range(9):
            store.store_segment(segment(1, b"1", f"many-{number}"))
    shown = run("info", "many", "--storage-dir", storage, code=1).stderr
    assert "the beginning of 9 ids: many-0, many-1, many-2, many-3, many-4, ..." in shown


# cancel


def cancelled(storage: Path, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = run("cancel", *arguments, "--storage-dir", storage, "--json", code=code)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_several_are_cancelled_and_what_cannot_be_is_told(storage: Path) -> None:
    command = ("cancel", "one", "gone", "report", "done", "one", "--storage-dir", storage)
    shown = run(*command, code=1)
    assert shown.stdout.splitlines() == [
        "cancelled one: 1 B dropped",
        "cancelled report: 4 B dropped",
    ]
    assert shown.stderr.splitlines() == [
        "Error: no transfer gone is known; nothing was done.",
        "Error: done is stored already; nothing was done.",
    ]
    assert left(storage) == ["other-1", "other-10"]


def test_cancel_json_has_an_object_for_each(storage: Path) -> None:
    assert cancelled(storage, "one", "gone", code=1) == [
        {"file_id": "one", "status": "cancelled", "segments": 1, "bytes": 1, "error": None},
        {
            "file_id": "gone",
            "status": "unknown",
            "segments": 0,
            "bytes": None,
            "error": "no transfer gone is known; nothing was done.",
        },
    ]


def test_an_id_that_others_begin_with_is_that_one(storage: Path) -> None:
    assert [one["file_id"] for one in cancelled(storage, "other-1")] == ["other-1"]
    assert left(storage) == ["one", "other-10", "report"]


def test_a_beginning_of_one_is_asked_about(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's own id may be one by now."""
    shown = run("cancel", "rep", "--storage-dir", storage, code=2).stderr
    assert "this would drop report. Say --yes where nobody can be asked." in shown
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    shown = run("cancel", "rep", "--storage-dir", storage, code=1, answer="n\n").stderr
    assert "Drop report? [y/N]" in shown
    assert "nothing was done" in shown
    assert left(storage) == IDS
    run("cancel", "rep", "--storage-dir", storage, answer="y\n")
    assert left(storage) == IDS[:-1]
    assert [one["file_id"] for one in cancelled(storage, "on", "--yes")] == ["one"]


def test_a_beginning_of_several_is_refused(storage: Path) -> None:
    command = ("cancel", "report", "other", "--storage-dir", storage, "--yes")
    assert "other is the beginning of 2 ids" in run(*command, code=1).stderr
    assert left(storage) == IDS


def test_all_are_asked_about_once(storage: Path) -> None:
    shown = run("cancel", "--all", "--storage-dir", storage, code=2).stderr
    assert "this would drop all unfinished transfers, 4 of them." in shown
    assert [one["file_id"] for one in cancelled(storage, "--all", "--yes")] == IDS
    assert cancelled(storage, "--all") == []
    nothing = run("cancel", "--all", "--storage-dir", storage)
    assert nothing.stdout == "No unfinished transfers.\n"


# ls


def test_ls_watch_looks_again_until_ctrl_c(storage: Path) -> None:
    setup = """
import os, signal, time
from txstore.store import FileStoreManager
rounds = 0
def sleep(seconds):
    global rounds
    rounds += 1
    if rounds == 3:
        os.kill(os.getpid(), signal.SIGINT)
time.sleep = sleep
"""
    shown = run_process("ls", "--watch", "--storage-dir", storage, setup=setup, code=130)
    assert (shown.stdout.count("EXPIRES IN"), shown.stderr.strip()) == (3, "")
    assert shown.stdout.count("Z\n") == 3


def test_on_a_terminal_ls_watch_begins_at_its_top(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    cleared = []
    monkeypatch.setattr(time, "sleep", stop)
    monkeypatch.setattr(ls, "moves_its_cursor", lambda _: True)
    monkeypatch.setattr("click.clear", lambda: cleared.append(1))
    run("ls", "--watch", "--storage-dir", storage, code=1)
    assert cleared == [1]


def test_name_and_share_are_shown_where_the_first_segment_said_them(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store.store_segment(segment(1, b"x" * 300, "said", name="a/b.bin", size=1000))
    line = run("ls", "--storage-dir", storage).stdout.splitlines()[-1]
    assert line.split("  ")[0] == "said"
    assert "  a/b.bin     300 B  1000 B  30 %  " in line
    facts = run("info", "said", "--storage-dir", storage).stdout
    assert "Name        a/b.bin\n" in facts
    assert "Received    300 B of 1000 B (30 %)\n" in facts


@pytest.mark.parametrize("width", [None, 200, 80, 60, 40, 20])
def test_ls_is_as_wide_as_the_terminal(
    storage: Path, monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    with FileStoreManager(storage, durability="none") as store:
        for end in ("11111111", "22222222"):
            store.store_segment(segment(1, b"1", f"put-quite-a-long-name-7c14be98d2a03f55-{end}"))
    monkeypatch.setattr(ls, "width_of_stdout", lambda: width)
    lines = run("ls", "--storage-dir", storage).stdout.splitlines()
    assert len(lines) == 1 + len(IDS) + 2
    ids = [line.split()[0].rstrip("…") for line in lines[1:]]
    # Each is the beginning of one only, however narrow the terminal is.
    for shown in ids:
        assert sum(known.startswith(shown) for known in left(storage)) in (1, 2)
        run("info", shown, "--storage-dir", storage)
    if width is not None and width >= 60:
        assert max(map(len, lines)) <= width
        assert ("EXPIRES IN" in lines[0]) == (width > 60)
    if width in (None, 200):
        assert lines[-1].startswith("put-quite-a-long-name-7c14be98d2a03f55-22222222  -")


def test_a_table_gives_up_columns_in_turn() -> None:
    columns = {"A": ["aaaa", "bb"], "B": ["1", "22"], "C": ["c", "c"]}

    def lines(width: int | None) -> list[str]:
        return table(
            columns,
            width,
            short={"A": lambda most: [cut(cell, max(2, most)) for cell in columns["A"]]},
            spare=["C", "B"],
            numbers=["B"],
        )

    assert lines(None) == ["A      B  C", "aaaa   1  c", "bb    22  c"]
    assert lines(11) == lines(None)
    assert lines(10) == ["A     B  C", "aa…   1  c", "bb   22  c"]
    assert lines(8) == ["A    B", "a…   1", "bb  22"]
    assert lines(1) == ["A", "a…", "bb"]


def test_a_beginning_is_never_that_of_another_one() -> None:
    assert beginnings(["abcdefg", "abcdxxx", "q"], 2) == ["abcde…", "abcdx…", "q"]
    assert beginnings(["abcdef", "abc"], 2) == ["abcd…", "abc"]
    assert beginnings(["abcdef"], 3) == ["ab…"]
    assert beginnings(["abcdef"], 9) == ["abcdef"]


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    assert width_of_stdout() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "77")
    assert width_of_stdout() == 77
    monkeypatch.setattr(sys, "stdout", None)
    assert width_of_stdout() is None


def test_what_is_finished_does_not_expire(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        done = store.status("done")
    assert done is not None
    assert expires_at(done, 1.0) is None


# files


def test_files_lists_what_is_stored_on_this_machine(storage: Path) -> None:
    (storage / "a" / "found.txt").write_bytes(b"by another way")
    found, stored = map(
        json.loads, run("files", "--storage-dir", storage, "--json").stdout.splitlines()
    )
    assert (found["name"], found["size"], found["sha256"]) == ("a/found.txt", 14, None)
    assert (stored["name"], stored["size"]) == ("a/stored.txt", 5)
    assert stored["mtime_ns"] == (storage / "a" / "stored.txt").stat().st_mtime_ns
    lines = run("files", "--storage-dir", storage).stdout.splitlines()
    assert lines[0].split()[0] == "-"
    assert lines[1].split()[:2] == [hashlib.sha256(b"whole").hexdigest(), "5"]
    assert lines[1].endswith("Z  a/stored.txt")


def test_files_of_no_store_is_wrong_usage() -> None:
    assert "one of --storage-dir and --config is required" in run("files", code=2).stderr
