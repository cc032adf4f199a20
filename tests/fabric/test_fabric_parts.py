"""What needs no broker: configuration, wire format, borders of the storage."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabric_broker import PATIENCE

from txstore import FileStoreManager, errors
from txstore.dxl import ConfigError, ServiceConfig, handlers
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.protocol import (
    ErrorKind,
    ListedFile,
    StatusAnswer,
    StoredVersion,
    Topics,
    decode_json,
    encode_json,
    error_reply,
)
from txstore.limits import Limits
from txstore.local.files.stored import StoredFiles
from txstore.sizes import parse_size


def config(folder: Path, text: str) -> ServiceConfig:
    (folder / "dxlfiletransferservice.config").write_text(text)
    return ServiceConfig.load(folder)


def test_defaults(tmp_path: Path) -> None:
    read = config(tmp_path, "[General]\nstorageDir = /s\nworkingDir =\nstoreTopic=\n")
    assert read == ServiceConfig(str(tmp_path), "/s")
    assert read.topics.store == "/opendxl-file-transfer/service/file-transfer/file/store"
    assert read.topics.status == read.topics.store + "/status"
    assert read.logging_config is None


def test_every_option(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sesame\n")
    read = config(
        tmp_path,
        "[General]\nstorageDir=s\nworkingDir=w\nstoreTopic=/t\ndurability=file\n"
        "expireAfter=1.5h\nkeepCompleted=2d\nlockTimeout=5\nallowNetworkFs=yes\nmode=0660\n"
        "maxFileSize=2G\nmaxTransfers=7\nmaxUnfinishedBytes=10G\nminFree=5%\nshareGroup=g\n"
        "onExists=refuse\nkeepEvents=2d\nmaxEvents=9\ncatalogue=no\nautoMigrate=no\n"
        "[IncomingMessagePool]\nthreadCount=3\nqueueSize=4\n"
        f"[Events]\nexec=date +%s\nwebhook=https://h/%20x\nsecretFile={tmp_path}/secret\n",
    )
    assert read.webhook_secret() == b"sesame"
    assert read.ignored == ()
    assert read == ServiceConfig(
        config_dir=str(tmp_path),
        storage_dir=os.path.abspath("s"),
        working_dir=os.path.abspath("w"),
        topics=Topics("/t"),
        durability="file",
        expire_after=5400,
        keep_completed=172800,
        lock_timeout=5,
        allow_network_fs=True,
        mode=0o660,
        limits=Limits(2 * 1024**3, 7, 10 * 1024**3, "5%"),
        on_exists="refuse",
        keep_events=172800,
        max_events=9,
        catalogue=False,
        auto_migrate=False,
        events_exec="date +%s",
        events_webhook="https://h/%20x",
        events_secret_file=f"{tmp_path}/secret",
        share_group="g",
        threads=3,
        queue_size=4,
    )


@pytest.mark.parametrize(
    "line",
    [
        *("durability=always", "expireAfter=soon", "keepCompleted=-1", "lockTimeout=1w"),
        *("allowNetworkFs=perhaps", "mode=99", "maxFileSize=big", "maxTransfers=0"),
        *("maxUnfinishedBytes=x", "minFree=101%", "minFree=5%%", "minFree=some"),
        *("shareGroup=a/b", "storeTopic=/all/#", "durability=%(missing)s"),
        *("onExists=skip", "keepEvents=long", "maxEvents=0", "catalogue=perhaps"),
        *("autoMigrate=perhaps",),
        *(
            "[Events]\nwebhook=ftp://h",
            "[Events]\nsecretFile=/gone",
            "[Events]\nsecretFile=/dev/null",
        ),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=line.split("=", maxsplit=1)[0].split("\n")[-1]):
        config(tmp_path, f"[General]\nstorageDir=/s\n{line}\n")


@pytest.mark.parametrize(
    ("line", "threads", "queue_size", "told"),
    [
        ("threadCount=ten", 10, 1000, "threadCount: should be a whole number, but is 'ten'"),
        ("queueSize=1.5", 10, 1000, "queueSize: should be a whole number, but is '1.5'"),
        ("queueSize=%(missing)s", 10, 1000, "queueSize"),
        *(("queueSize=0", 10, 0, ""), ("queueSize=-1", 10, 0, ""), ("threadCount=+3", 3, 1000, "")),
    ],
)
def test_the_pool_is_configured_as_upstreams_is(
    tmp_path: Path, line: str, threads: int, queue_size: int, told: str
) -> None:
    read = config(tmp_path, f"[General]\nstorageDir=/s\n[IncomingMessagePool]\n{line}\n")
    assert (read.threads, read.queue_size) == (threads, queue_size)
    assert [told in each for each in read.ignored] == [True] * bool(told)


@pytest.mark.parametrize("count", [0, -1])
def test_a_pool_without_threads_is_refused(tmp_path: Path, count: int) -> None:
    text = f"[General]\nstorageDir=/s\n[IncomingMessagePool]\nthreadCount={count}\n"
    with pytest.raises(ConfigError, match="threadCount: should be a whole number from 1"):
        config(tmp_path, text)


def test_options_that_there_are_not_are_told(tmp_path: Path) -> None:
    read = config(
        tmp_path,
        "[General]\nstorageDir=/s\ndurabilty=file\n[IncomingMessagePool]\nmode=0600\n"
        "[MessageCallbackPool]\nthreadCount=1\n",
    )
    path = tmp_path / "dxlfiletransferservice.config"
    assert read.ignored == (
        f"{path}: [General] durabilty: no such option",
        f"{path}: [IncomingMessagePool] mode: no such option",
    )


@pytest.mark.parametrize(
    ("error", "kind", "facts"),
    [
        (
            errors.SequenceError(expected=3, received=5, file_id="i"),
            ErrorKind.SEQUENCE,
            {"expected": "3", "received": "5", "file_id": "i"},
        ),
        (
            errors.RepeatMismatchError(expected=3, received=2, file_id="i"),
            ErrorKind.REPEAT,
            {"expected": "3", "received": "2", "file_id": "i"},
        ),
        (errors.StagingDamagedError("p", "i", "is gone"), ErrorKind.DAMAGED, {"file_id": "i"}),
        (errors.LockTimeoutError("p", 3.0), ErrorKind.UNAVAILABLE, {}),
        (ValueError("wrong"), ErrorKind.REFUSED, {}),
        (RuntimeError("a bug"), ErrorKind.UNAVAILABLE, {}),
    ],
)
def test_errors_tell_a_client_what_to_do(
    error: Exception, kind: ErrorKind, facts: dict[str, str]
) -> None:
    reply = error_reply(error)
    assert reply.text == str(error)
    assert reply.fields == {"txstore": "1", "error": kind.value, **facts}


def test_an_error_of_the_services_disk_is_not_taken_for_one_of_the_senders() -> None:
    reply = error_reply(OSError(28, "No space left on device", "/srv/files/.workdir/x"))
    assert reply.text == "The service cannot do this now: No space left on device"
    assert reply.fields["error"] == "unavailable"


def test_an_error_with_a_name_that_is_no_text_can_be_sent() -> None:
    name = os.fsdecode(b"\xff.bin")
    reply = error_reply(errors.FieldError(f"bad {name}", field="name", file_id=name))
    assert reply.text.encode() == b"bad \\udcff.bin"
    assert reply.fields["file_id"] == "\\udcff.bin"


def test_answers_of_a_later_version_are_understood() -> None:
    line = {"name": "n", "size": 1, "mtime_ns": 2, "sha256": None, "added": "later"}
    assert ListedFile.from_json(line) == ListedFile("n", 1, 2, None)
    status = {"file_id": "i", "state": "unknown", "added": 3}
    assert StatusAnswer.from_json(status) == StatusAnswer("i", "unknown")
    version = StoredVersion(1, 2, "aa")
    assert StoredVersion.from_fields({**version.to_fields(), "added": "later"}) == version
    with pytest.raises(ValueError, match="mtime_ns"):
        StoredVersion.from_fields({"size": "1", "sha256": "aa"})


def test_json_payloads() -> None:
    assert decode_json(b'{"a": 1}\0') == {"a": 1}
    assert decode_json(b"") == decode_json(None) == {}
    for bad in (b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(errors.FieldError):
            decode_json(bad)


@pytest.fixture
def tree(tmp_path: Path) -> StoredFiles:
    storage = tmp_path / "storage"
    for name in ("a.txt", "a/b/c", "a/d", "z", ".workdir/journal.db", ".txstore/staging/x"):
        path = storage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (storage / "inner").symlink_to("a/b")
    (storage / "absolute").symlink_to(storage / "a" / "d")
    (storage / "up").symlink_to("a/b/../d")
    (storage / "out").symlink_to("../outside")
    (storage / "in-and-out").symlink_to("a/../../outside/secret")
    (storage / "root").symlink_to("/")
    (storage / "own").symlink_to(".workdir")
    (storage / "one").symlink_to("two")
    (storage / "two").symlink_to("one")
    os.mkfifo(storage / "pipe")
    return StoredFiles(str(storage), str(storage / ".workdir"))


def test_files_come_in_order_and_go_on_after_any_name(tree: StoredFiles) -> None:
    names = [file.name for file in tree.files()]
    assert names == ["a/b/c", "a/d", "a.txt", "z"]
    for number, name in enumerate(names):
        assert [file.name for file in tree.files(name)] == names[number + 1 :]
    assert [file.name for file in tree.files("a/c")] == names[1:]
    assert [file.name for file in tree.files("a")] == names
    assert [file.name for file in tree.files(limit=2)] == names[:2]
    assert list(tree.files(limit=0)) == []
    assert [(file.size, file.sha256) for file in tree.files(limit=1)] == [(5, None)]


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        *(("a.txt", "a.txt"), ("./a//b/../d", "a/d"), ("inner/c", "a/b/c")),
        *(("absolute", "a/d"), ("up", "a/d")),
    ],
)
def test_opens_what_is_inside(tree: StoredFiles, name: str, holds: str) -> None:
    opened = tree.open(name)
    with opened.file as file:
        assert file.read().decode() == holds
        assert opened.size == len(holds)
        assert not opened.changed()


@pytest.mark.parametrize(
    "name",
    [
        *("../outside/secret", "out/secret", "in-and-out", "root/etc/passwd", "one", "/etc/passwd"),
        *(".workdir/journal.db", ".txstore/staging/x", "own/journal.db", ".", "", "a\0b"),
    ],
)
def test_opens_nothing_outside(tree: StoredFiles, name: str) -> None:
    with pytest.raises(errors.NameRefusedError):
        tree.open(name)


def test_opens_nothing_but_files(tree: StoredFiles) -> None:
    with pytest.raises(IsADirectoryError):
        tree.open("a")
    with pytest.raises(OSError, match="Not a regular file"):
        tree.open("pipe")
    for name in ("nothing", "a.txt/below"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            tree.open(name)


def test_an_opened_file_stays_the_same_and_tells_if_it_was_written(
    tree: StoredFiles, tmp_path: Path
) -> None:
    path = tmp_path / "storage" / "z"
    opened = tree.open("z")
    with opened.file as file:
        (tmp_path / "other").write_text("other")
        (tmp_path / "other").replace(path)
        assert file.read() == b"z"
        assert not opened.changed()
    opened = tree.open("z")
    with opened.file:
        path.write_text("longer")
        assert opened.changed()


def test_a_folder_too_deep_for_any_name_does_not_stop_the_list(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path, durability="none") as store, ExitStack() as stack:
        folder = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, folder)
        for _ in range(17):
            os.mkdir("d" * 250, dir_fd=folder)
            folder = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
            stack.callback(os.close, folder)
        os.close(os.open("deep", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        (tmp_path / "e").touch()
        stored = StoredFiles(str(tmp_path), store.working_dir, store.stored_sha256)
        assert [file.name[-4:] for file in stored.files()] == ["deep", "e"]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder in a folder in a ..., which shutil may not be able to remove."""
    yield tmp_path / "deep"
    subprocess.run(["rm", "-r", str(tmp_path / "deep")], check=True)


def test_a_tree_deeper_than_the_stack_is_listed(deep: Path) -> None:
    depth = 1900
    deep.mkdir()
    folder = os.open(deep, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        for name in ("c", "e"):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=below))
        os.close(folder)
        folder = below
    os.close(folder)
    before = len(os.listdir("/proc/self/fd"))
    stored = StoredFiles(str(deep), str(deep / ".workdir"))
    walk = stored.files()
    names = [next(walk).name for _ in range(depth)]
    assert len(os.listdir("/proc/self/fd")) < before + 100
    names += [file.name for file in walk]
    assert names[depth - 1] == "d/" * depth + "c"
    assert sorted(names) == sorted("d/" * up + end for up in range(1, depth + 1) for end in "ce")
    assert [file.name for file in stored.files(names[depth], limit=2)] == names[depth + 1 :][:2]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("500", 500), ("7B", 7), ("2k", 2048), ("50 KiB", 51200)),
        *(("1m", 2**20), ("2G", 2**31), ("3T", 3 * 2**40)),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1.5M", "1 KB", "0x10", "1e3", " 1", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_while_a_large_file_is_read_for_its_hash_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(*data: bytes) -> Any:
        reading.set()
        assert go_on.wait(PATIENCE)
        return hashlib.sha256(*data)

    def request(name: str) -> Any:
        return SimpleNamespace(payload=encode_json({"name": name}), other_fields={})

    monkeypatch.setattr(handlers, "hashlib", SimpleNamespace(sha256=slow))
    monkeypatch.setattr(handlers, "READING_TIMEOUT", 0.0)
    for name in ("large", "other"):
        (tmp_path / name).write_text(name)
    with FileStoreManager(tmp_path, durability="none") as store, ThreadPoolExecutor(1) as pool:
        answers = StoreHandlers(store, ServiceConfig(str(tmp_path), str(tmp_path)))
        first = pool.submit(answers.get, request("large"))
        assert reading.wait(PATIENCE)
        for name in ("large", "other"):
            assert answers.get(request(name)).fields["error"] == "unavailable"
        go_on.set()
        assert first.result(PATIENCE).fields["sha256"] == hashlib.sha256(b"large").hexdigest()
        assert answers.get(request("other")).fields["size"] == "5"
