"""``txstore events``: what it prints, what it runs, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from cli_driver import run, run_process, start
from crew import cancel, last, segment, wait_for

from txstore import FileStoreManager
from txstore.cli.commands.events import events


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(last("one", 1, b"x" * 2000, "a/one", b"x" * 2000))
        store.store_segment(segment("gone", 1, b"x"))
        store.store_segment(cancel("gone"))
    return storage


def test_events_are_shown_in_order(storage: Path) -> None:
    for _ in range(2):
        shown = run("events", "--storage-dir", storage).stdout.splitlines()
        assert [line.split()[0] for line in shown] == ["1", "2"]
        assert [line.split()[2] for line in shown] == ["stored", "cancelled"]
        assert shown[0].endswith("2.0 KiB  a/one")
        assert shown[1].endswith("1 B  gone")


def test_a_consumer_is_shown_each_once_as_json(storage: Path) -> None:
    shown = run("events", "--storage-dir", storage, "--consumer", "x", "--json").stdout
    found = [json.loads(line) for line in shown.splitlines()]
    with FileStoreManager(storage) as store:
        assert found == [event.to_dict() for event in store.events()]
        assert [(one.name, one.cursor) for one in store.consumers()] == [("x", 2)]
    assert run("events", "--storage-dir", storage, "--consumer", "x").stdout == ""


def test_a_command_gets_each_until_it_takes_it(storage: Path, tmp_path: Path) -> None:
    path = tmp_path / "got"
    command = f"cat >> '{path}'; test $(wc -l < '{path}') != 1"
    ended = run_process(*("events", "--storage-dir", storage, "--consumer", "x", "--exec", command))
    got = [json.loads(line)["sequence"] for line in path.read_text().splitlines()]
    assert got == [1, 1, 2]
    assert ended.stderr == (
        "Event 1 (stored) was not taken: the command ended with 1. Once more in 0.5 s.\n"
    )
    assert ended.stdout == ""


@pytest.mark.parametrize("more", [["--exec", "true"], ["--consumer", "x", "--exec", "y", "--json"]])
def test_a_command_needs_a_consumer_and_no_json(storage: Path, more: list[str]) -> None:
    assert (
        "--exec needs a --consumer" in run("events", "--storage-dir", storage, *more, code=2).stderr
    )


def test_consumers_are_listed_with_what_is_behind(storage: Path) -> None:
    asked = ("events", "--storage-dir", storage, "--consumers")
    assert run(*asked).stdout == "No consumers.\n"
    run("events", "--storage-dir", storage, "--consumer", "done")
    with FileStoreManager(storage) as store, store.events("begun") as feed:
        next(feed).done()
        known = store.consumers()
    heading, *lines = run(*asked).stdout.splitlines()
    assert heading.split() == ["NAME", "DONE", "WITH", "BEHIND", "LOST", "REGISTERED"]
    assert [line.split()[:4] for line in lines] == [
        ["begun", "1", "1", "0"],
        ["done", "2", "0", "0"],
    ]
    told = [json.loads(line) for line in run(*asked, "--json").stdout.splitlines()]
    assert told == [one.to_dict() for one in known]
    assert set(told[0]) == {"name", "cursor", "behind", "lost", "registered_at"}


def test_a_consumer_is_forgotten_and_keeps_nothing_any_more(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        with store.events("gone") as feed:
            next(feed)
        with store.events("stays") as feed:
            for event in feed:
                event.done()
    asked = ("events", "--storage-dir", storage, "--forget", "gone")
    assert run(*asked).stdout == "gone: forgotten; it was 2 events behind.\n"
    shown = run(*asked, code=1)
    assert shown.stderr == (
        "Error: there is no consumer 'gone'; nothing was done. --consumers lists them.\n"
    )
    with FileStoreManager(storage, keep_events=1e-9) as store:
        assert [one.name for one in store.consumers()] == ["stays"]
        store.expire()
        # The newest is never removed.
        assert [event.sequence for event in store.events()] == [2]
    told = json.loads(run("events", "--storage-dir", storage, "--forget", "stays", "--json").stdout)
    assert (told["name"], told["cursor"]) == ("stays", 2)


@pytest.mark.parametrize(
    "more",
    [
        ["--consumers", "--forget", "x"],
        ["--forget", "x", "--follow"],
        ["--consumers", "--consumer", "x"],
    ],
)
def test_listing_and_forgetting_go_alone(storage: Path, more: list[str]) -> None:
    shown = run("events", "--storage-dir", storage, *more, code=2)
    assert "--consumers and --forget each go alone" in shown.stderr


def test_there_has_to_be_a_store(tmp_path: Path) -> None:
    shown = run("events", "--storage-dir", tmp_path / "none", code=1)
    assert "there is no store here" in shown.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", [None, "cat >> '{}'; exit 1", "cat >> '{}'; exec sleep 100"])
def test_one_who_follows_is_ended_by_ctrl_c_and_nothing_is_lost(
    storage: Path, tmp_path: Path, command: str | None
) -> None:
    path = tmp_path / "got"
    more = ["--json"] if command is None else ["--exec", command.format(path)]
    with path.open("w") as out:
        process = start(
            *("events", "--storage-dir", storage, "--consumer", "x", "--follow", *more),
            stdout=out.fileno() if command is None else subprocess.PIPE,
        )
    wanted = 3 if command is None else 1
    if command is None:
        wait_for(lambda: len(path.read_text().splitlines()) == 2)
        with FileStoreManager(storage, durability="none") as store:
            store.store_segment(last("later", 1, b"y", "later", b"y"))
    wait_for(lambda: len(path.read_text().splitlines()) >= wanted)
    if command is None:
        with FileStoreManager(storage) as store:
            wait_for(lambda: store.consumers()[0].cursor == 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    with FileStoreManager(storage) as store:
        assert [one.cursor for one in store.consumers()] == [0 if command else 3]
        # Its turn is over with it.
        left = [event.sequence for event in store.events("x")]
    assert left == ([1, 2] if command else [])


def test_its_help_shows_examples() -> None:
    assert "--exec ./index.sh" in (events.epilog or "")
