"""``txstore ls``, ``cancel``, usage, and what each command says when something is in the way."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import signal
import sqlite3
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_driver import after_ack, run, run_process
from dxlclient.message import Request

from txstore import FileStoreManager, FileStoreSegmentResult, TransferStatus
from txstore.cli.problems import explain
from txstore.cli.text import human, lasting, shown
from txstore.errors import (
    JournalDamagedError,
    JournalError,
    JournalVersionError,
    LockTimeoutError,
    NameRefusedError,
)
from txstore.local.journal.schema import REVISION
from txstore.protocol.request import Message


def segment(payload: bytes, **fields: str) -> Request:
    """A message as it comes from a client."""
    message = Request("/store")
    message.payload = payload
    message.other_fields = fields
    return message


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A store with two unfinished transfers."""
    path = tmp_path / "storage"
    with FileStoreManager(path, durability="none") as store:
        store.store_segment(segment(b"12345", file_id="first", segment_number="1"))
        store.store_segment(segment(b"1" * 2048, file_id="second", segment_number="1"))
        store.store_segment(segment(b"1" * 1024, file_id="second", segment_number="2"))
    return path


# expire


def test_expire_drops_what_nobody_goes_on_with_and_says_which(storage: Path) -> None:
    shown = run("expire", "--storage-dir", storage)
    assert (shown.stdout, shown.stderr) == ("No transfer has expired.\n", "")
    shown = run("expire", "--storage-dir", storage, "--expire-after", "0")
    assert shown.stdout.splitlines() == ["dropped first", "dropped second"]
    assert run("ls", "--storage-dir", storage).stdout == "No unfinished transfers.\n"
    assert list((storage / ".workdir" / "staging").iterdir()) == []


def test_expire_json_is_a_list_of_ids(storage: Path) -> None:
    working = storage / ".workdir"
    command = ["expire", "--storage-dir", storage, "--working-dir", working, "--json"]
    assert json.loads(run(*command, "--expire-after", "12h").stdout) == []
    assert json.loads(run(*command, "--expire-after", "0s").stdout) == ["first", "second"]


def test_expire_makes_no_store_and_takes_no_nonsense_for_a_time(tmp_path: Path) -> None:
    shown = run("expire", "--storage-dir", tmp_path / "none", code=1)
    assert "there is no store here" in shown.stderr
    assert list(tmp_path.iterdir()) == []
    shown = run("expire", "--storage-dir", tmp_path, "--expire-after", "soon", code=2)
    assert "should be a time such as 90, 90s, 15m, 12h or 7d, but is 'soon'" in shown.stderr


# ls


def test_ls_shows_each_unfinished_transfer_and_its_progress(storage: Path) -> None:
    header, first, second = run("ls", "--storage-dir", storage).stdout.splitlines()
    assert re.split(r"  +", header) == [
        *("ID", "NAME", "RECEIVED", "TOTAL", "PART", "AGE", "EXPIRES IN", "STATE")
    ]
    assert re.split(r"  +", first)[:5] == ["first", "-", "5 B", "-", "-"]
    assert re.split(r"  +", second)[:5] == ["second", "-", "3.0 KiB", "-", "-"]
    assert second.endswith("s      6 days  receiving")


def test_ls_json_is_a_list_with_iso_times(storage: Path) -> None:
    command = ("ls", "--storage-dir", storage, "--json", "--expire-after", "1h")
    first, second = json.loads(run(*command).stdout)
    assert set(first) == {"expires_at", *TransferStatus.__dataclass_fields__}
    assert (first["file_id"], second["file_id"]) == ("first", "second")
    assert (second["segments_received"], second["bytes_received"]) == (2, 3072)
    updated = datetime.fromisoformat(first["updated_at"])
    assert timedelta(0) <= datetime.now(timezone.utc) - updated < timedelta(hours=1)
    assert datetime.fromisoformat(first["expires_at"]) == updated + timedelta(hours=1)


def test_ls_of_a_store_without_unfinished_transfers_says_so(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store.cancel("first")
        store.cancel("second")
    assert run("ls", "--storage-dir", storage).stdout == "No unfinished transfers.\n"
    assert json.loads(run("ls", "--storage-dir", storage, "--json").stdout) == []


def test_ls_finds_the_store_by_its_working_dir(tmp_path: Path) -> None:
    folders = [tmp_path / "storage", tmp_path / "working"]
    with FileStoreManager(*folders) as store:
        store.store_segment(segment(b"1", file_id="one", segment_number="1"))
    found = run("ls", "--storage-dir", folders[0], "--working-dir", folders[1])
    assert "one" in found.stdout


# cancel


def test_cancel_drops_the_transfer(storage: Path) -> None:
    assert (
        "cancelled second: 3.0 KiB dropped"
        in run("cancel", "second", "--storage-dir", storage).stdout
    )
    with FileStoreManager(storage) as store:
        assert [transfer.file_id for transfer in store.transfers()] == ["first"]


def test_cancel_of_an_unknown_id_says_that_nothing_was_done(storage: Path) -> None:
    result = run("cancel", "unknown", "--storage-dir", storage, code=1)
    assert "no transfer unknown is known" in result.stderr


def test_cancel_leaves_a_stored_file_alone(storage: Path) -> None:
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    fields = {"name": "empty", "size": "0", "hash_sha256": digest, "result": "store"}
    with FileStoreManager(storage) as store:
        store.store_segment(segment(b"", file_id="one", segment_number="1"))
        store.store_segment(segment(b"", file_id="one", segment_number="2", **fields))
    result = run("cancel", "one", "--storage-dir", storage, code=1)
    assert "stored already" in result.stderr
    assert (storage / "empty").is_file()


def test_cancel_of_a_transfer_that_is_busy_says_so(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise LockTimeoutError("/the/lock", 30)

    monkeypatch.setattr(FileStoreManager, "status", busy)
    result = run("cancel", "second", "--storage-dir", storage, code=1)
    assert "second was not cancelled: another process has been busy with it for 30 s" in (
        result.stderr
    )
    assert "Nothing that was acknowledged is lost" not in result.stderr


def test_cancel_of_an_id_that_cannot_be_one_is_an_error_in_words(storage: Path) -> None:
    assert "Error: " in run("cancel", "a/b", "--storage-dir", storage, code=1).stderr


# Who only looks makes nothing


@pytest.mark.parametrize("command", [["ls"], ["cancel", "some-id"]], ids=["ls", "cancel"])
def test_looking_for_a_store_makes_no_folder(tmp_path: Path, command: list[str]) -> None:
    result = run(*command, "--storage-dir", tmp_path / "none", code=1)
    assert "there is no store here" in result.stderr
    assert "--storage-dir" in result.stderr
    assert list(tmp_path.iterdir()) == []
    run(*command, "--storage-dir", tmp_path, code=1)
    assert list(tmp_path.iterdir()) == []


# Usage


def test_version_is_the_installed_one() -> None:
    first, *others = run_process("--version").stdout.splitlines()
    assert first == f"txstore {version('txstore')}"
    assert others == [
        f"Engine local, journal {REVISION}; SQLite {sqlite3.sqlite_version}",
        f"Python {platform.python_version()}",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["put", "--storage-dir", "s"], "FILE..."),
        (["put", "f"], "--storage-dir"),
        (["put", "f", "--storage-dir", ""], "the path is empty"),
        (["ls", "--storage-dir", "s", "--working-dir", ""], "the path is empty"),
        (["put", "a", "b", "--storage-dir", "s", "--name", "n"], "one FILE only"),
        (["put", "a/x", "b/x", "c/y", "--storage-dir", "s"], "would be stored as x."),
        (["put", "a", "--storage-dir", "s", "--name", ""], "--name is empty"),
        (["put", "a", "", "--storage-dir", "s"], "the path is empty"),
        (["put", "f", "--storage-dir", "s", "--durability", "most"], "'most'"),
        (["put", "f", "--storage-dir", "s", "--segment-size", "0"], "1 byte"),
        (["put", "f", "--storage-dir", "s", "--segment-size", "2GiB"], "1 GiB"),
        (["put", "f", "--storage-dir", "s", "--segment-size", "5 bananas"], "is no size"),
        (["cancel", "--storage-dir", "s"], "either IDs, or --all"),
        (["cancel", "i", "--all", "--storage-dir", "s"], "either IDs, or --all"),
        (["cancel", "--all", "--config", "c"], "--all goes with --storage-dir"),
        (["cancel", "i"], "one of --storage-dir and --config"),
        (["cancel", "i", "--working-dir", "w"], "one of --storage-dir and --config"),
        (["cancel", "i", "--config", ""], "the path is empty"),
        (["cancel", "i", "--config", "c", "--storage-dir", "s"], "--config goes with neither"),
        (["cancel", "i", "--config", "c", "--working-dir", "w"], "--config goes with neither"),
        (["cancel", "i", "--storage-dir", "s", "--topic", "/t"], "--topic goes with --config"),
        (["put", "f", "--storage-dir", "s", "--segment-size", "most"], "is no size"),
        (["put", "f", "--storage-dir", "s", "--segment-size", "1\N{KELVIN SIGN}"], "is no size"),
    ],
)
def test_wrong_usage_ends_with_code_2_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in run(*arguments, code=2).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each segment that a ``put`` in this process sends."""
    found: list[int] = []

    class Counting(FileStoreManager):
        def store_segment(self, message: Message) -> FileStoreSegmentResult:
            found.append(len(message.payload))
            return super().store_segment(message)

    monkeypatch.setattr("txstore.cli.storage.FileStoreManager", Counting)
    return found


@pytest.mark.parametrize(
    ("text", "segments"), [("2048", 5), ("2k", 5), ("2KiB", 5), ("4 KiB", 3), ("1MiB", 1)]
)
def test_segment_size_is_taken_with_and_without_a_unit(
    tmp_path: Path, sent: list[int], text: str, segments: int
) -> None:
    (tmp_path / "f").write_bytes(b"1" * (9 * 1024))
    run("put", tmp_path / "f", "--storage-dir", tmp_path / "s", "--segment-size", text)
    assert len(sent) == segments


@pytest.mark.parametrize(("size", "largest"), [(1, 1), (2**20 + 1, 2**20), (2**28, 2**21)])
def test_segments_are_larger_where_the_file_is(
    tmp_path: Path, sent: list[int], size: int, largest: int
) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(size)
    run("put", tmp_path / "f", "--storage-dir", tmp_path / "s", "--durability", "none")
    assert (sum(sent), max(sent)) == (size, largest)


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["--version"], ["sqlalchemy", "dxlclient", "rich.console", "importlib.metadata"]),
        (["--help"], ["sqlalchemy", "dxlclient", "rich.console"]),
        (["send", "--help"], ["sqlalchemy", "dxlclient", "rich.console"]),
        (["ls", "--storage-dir", "{}"], ["alembic", "txstore.dxl", "rich.console"]),
        (["put", __file__, "--storage-dir", "{}"], ["alembic", "txstore.dxl", "rich.console"]),
        (["files", "--help"], ["txstore.cli.commands.put"]),
    ],
    ids=str,
)
def test_what_a_command_does_not_use_is_not_loaded(
    storage: Path, arguments: list[str], unused: list[str]
) -> None:
    setup = f"import sys\nsys.modules.update(dict.fromkeys({unused}))\n"
    run_process(*(argument.format(storage) for argument in arguments), setup=setup)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_the_command_says_how_to_install_it(missing: str) -> None:
    setup = f"import sys\nsys.modules[{missing!r}] = None\n"
    result = run_process("ls", setup=setup, code=1)
    assert f"needs {missing}" in result.stderr
    assert "pip install 'txstore[cli]'" in result.stderr


# What stands in the way

# What root has and others have not: reading and writing against the permissions.
AS_NOBODY_SPECIAL = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "txstore", *sys.argv[1:]])
"""


def test_a_source_without_permission_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    result = run_process(
        *("put", tmp_path / "secret", "--storage-dir", tmp_path / "s"),
        setup=AS_NOBODY_SPECIAL,
        code=1,
    )
    assert "secret" in result.stderr
    assert "Permission denied" in result.stderr


def test_a_storage_without_permission_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    storage = tmp_path / "locked" / "s"
    result = run_process(
        *("put", tmp_path / "f", "--storage-dir", storage), setup=AS_NOBODY_SPECIAL, code=1
    )
    assert "cannot open the store" in result.stderr
    assert "Permission denied" in result.stderr
    assert "Run as a user who may write there" in result.stderr


def test_ls_without_permission_is_an_error_in_words(storage: Path) -> None:
    storage.chmod(0)
    result = run_process("ls", "--storage-dir", storage, setup=AS_NOBODY_SPECIAL, code=1)
    storage.chmod(0o700)
    assert "Permission denied" in result.stderr


def test_a_file_where_the_storage_should_be_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for command in (["put", str(tmp_path / "f")], ["ls"]):
        result = run(*command, "--storage-dir", tmp_path / "f", code=1)
        assert "A file stands where a folder is needed" in result.stderr


def test_a_working_dir_around_the_storage_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    folders = ["--storage-dir", tmp_path / "w" / "s", "--working-dir", tmp_path / "w"]
    assert "cannot open the store" in run("put", tmp_path / "f", *folders, code=1).stderr


def test_folders_that_do_not_belong_together_are_an_error_in_words(
    tmp_path: Path, storage: Path
) -> None:
    (tmp_path / "f").touch()
    folders = ["--storage-dir", tmp_path / "other", "--working-dir", storage / ".workdir"]
    result = run("put", tmp_path / "f", *folders, code=1)
    assert "cannot open the store" in result.stderr


@pytest.mark.parametrize("command", ["put", "ls", "cancel"])
def test_a_damaged_journal_is_refused_in_words(storage: Path, command: str) -> None:
    (storage / ".workdir" / "journal.db").write_bytes(b"no journal at all" * 1000)
    (storage.parent / "f").touch()
    arguments = {"put": [str(storage.parent / "f")], "cancel": ["first"]}.get(command, [])
    result = run_process(command, *arguments, "--storage-dir", storage, code=1)
    assert "damaged" in result.stderr
    assert "journal.db" in result.stderr


def test_every_file_is_tried_although_the_disk_fails_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1" * 10)
    fail_once = """
import errno
from txstore.store import FileStoreManager
store_segment = FileStoreManager.store_segment
def failing(self, message):
    if message.other_fields["name"] == "a":
        raise OSError(errno.EIO, "Input/output error", "/the/disk")
    return store_segment(self, message)
FileStoreManager.store_segment = failing
"""
    result = run_process(
        *("put", tmp_path / "a", tmp_path / "b", "--storage-dir", tmp_path / "s"),
        setup=fail_once,
        code=1,
    )
    assert "look into the kernel's log" in result.stderr
    assert (tmp_path / "s" / "b").is_file()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d"), "Make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota is used up"),
        (OSError(errno.EFBIG, "File too large", "/d"), "ulimit -f"),
        (OSError(errno.EROFS, "Read-only file system", "/d"), "mounted read-only"),
        (OSError(errno.EPERM, "Operation not permitted", "/d"), "Run as a user"),
        (OSError("no number"), "no number."),
        (JournalError(errno.ENOSPC, "The journal is full", "/j"), "Make room"),
        (JournalDamagedError("/j", "it is text"), "Restore the working dir from a backup"),
        (JournalVersionError("/j", found="9", supported="2"), "Upgrade txstore"),
        (LockTimeoutError("/l", 30), "busy with the store for 30 s"),
        (NameRefusedError("../x", "it leads out of the storage"), "Choose another with --name"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_says_what_to_do(error: Exception, words: str) -> None:
    assert words in explain(error)
    assert "\n" not in explain(error)


def test_sigterm_needs_no_care(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1" * 4096)
    command = ["put", tmp_path / "f", "--storage-dir", tmp_path / "s", "--segment-size", "1024"]
    terminate = after_ack(2, "os.kill(os.getpid(), signal.SIGTERM)")
    run_process(*command, setup=terminate, code=-signal.SIGTERM)
    assert "resuming at 2.0 KiB" in run(*command).stderr


# Words


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (3 * 2**30, "3.00 GiB"),
        (5 * 2**50, "5120.00 TiB"),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert human(size) == text


def test_what_a_terminal_cannot_print_is_escaped() -> None:
    assert shown("a\x1b[2Jb\n" + os.fsdecode(b"\xff") + "ü") == r"a\x1b[2Jb\n\udcffü"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (90, "90 s"), (150, "2 min"), (7200, "2 h"), (4e5, "4 days")]
)
def test_lengths_of_time_are_for_people(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
