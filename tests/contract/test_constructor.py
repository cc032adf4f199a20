"""Opening and closing a store: every line of the contract's section on the constructor."""

from __future__ import annotations

import errno
import gc
import inspect
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crew import apart
from support import (
    DISK,
    FULL,
    LEVELS,
    at_each_level,
    become_user,
    descriptors,
    get_own_mounts,
    message,
    mount,
    outcome,
    published,
    send,
    staged,
    transfer_messages,
    tree,
)

import txstore
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import OptionError, StoreClosedError, StoreMismatchError
from txstore.local.lockfile import JOURNAL_BYTE
from txstore.options import Level

DATA = b"first second third"
SIZE = 6


def open_store(*folders: Any, **options: Any) -> FileStoreManager:
    return FileStoreManager(*folders, **{"durability": "none", **options})


def check_works(store: FileStoreManager, name: str = "check") -> None:
    """One file of several segments and one of one."""
    send(store, transfer_messages(DATA, SIZE, name=f"{name} several", file_id=name))
    send(store, transfer_messages(DATA, 100, name=f"{name} one", file_id=name))
    found = published(store)
    assert (found[f"{name} several"], found[f"{name} one"]) == (DATA, DATA)


# Folders


def test_the_signature_is_upstreams_with_keywords_on_top() -> None:
    parameters = list(inspect.signature(FileStoreManager).parameters.values())
    assert [(p.name, p.kind) for p in parameters[:2]] == [
        ("storage_dir", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ("working_dir", inspect.Parameter.POSITIONAL_OR_KEYWORD),
    ]
    assert parameters[1].default is None
    assert {p.kind for p in parameters[2:]} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {p.name: p.default for p in parameters[2:]}
    assert defaults["durability"] == "segment"
    assert defaults["expire_after"] == 7 * 24 * 3600
    assert defaults["keep_completed"] == 24 * 3600
    assert txstore.FileStoreManager is txstore.store.FileStoreManager


@pytest.mark.parametrize("kind", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_both_folders_are_made_with_their_parents(tmp_path: Path, kind: Any) -> None:
    storage, working = tmp_path / "a" / "b" / "storage", tmp_path / "c" / "d" / "working"
    with open_store(kind(storage), kind(working)) as store:
        assert (store.storage_dir, store.working_dir) == (str(storage), str(working))
        check_works(store)
    assert (storage / "check one").read_bytes() == DATA
    assert (working / "journal.db").is_file()


@pytest.mark.parametrize("working", [None, ""])
def test_the_default_working_dir_is_hidden_in_the_storage_dir(
    tmp_path: Path, working: str | None
) -> None:
    with open_store(tmp_path / "storage", working) as store:
        assert store.working_dir == str(tmp_path / "storage" / ".workdir")
        check_works(store)


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_storage_dir_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Any
) -> None:
    """It would be the current folder, which nobody meant whose variable is not set."""
    monkeypatch.chdir(tmp_path)
    error = outcome(FileStoreManager, empty)
    assert isinstance(error, OptionError)
    assert (error.option, error.received) == ("storage_dir", empty)
    assert list(tmp_path.iterdir()) == []


def test_paths_are_fixed_when_the_store_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("storage", os.path.join("x", "..", "working")) as store:
        assert store.storage_dir == str(tmp_path / "storage")
        assert store.working_dir == str(tmp_path / "working")
        one, two, three = transfer_messages(DATA, SIZE, name="d/file")
        store.store_segment(one)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.store_segment(two)
        assert store.store_segment(three).file_result == "store"
        check_works(store)
        assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "storage" / "d" / "file").read_bytes() == DATA


def test_folders_may_be_reached_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk" / "storage").mkdir(parents=True)
    (tmp_path / "disk" / "working").mkdir()
    for name in ("storage", "working"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        check_works(store)
        # The same folders by another path are the same store.
        with open_store(tmp_path / "disk" / "storage", tmp_path / "disk" / "working") as other:
            send(store, transfer_messages(DATA, SIZE)[:2])
            send(other, transfer_messages(DATA, SIZE)[2:])
    assert (tmp_path / "disk" / "storage" / "file.bin").read_bytes() == DATA


@pytest.mark.parametrize("where", ["storage", "storage/deep", "{working}", "{working}/deep"])
def test_a_file_in_the_way_is_not_a_directory_error(tmp_path: Path, where: str) -> None:
    path = tmp_path / where.format(working="working")
    (tmp_path / where.format(working="working").split("/")[0]).write_bytes(b"kept")
    before = tree(tmp_path)
    folders = (path,) if where.startswith("storage") else (tmp_path / "storage", path)
    with pytest.raises(NotADirectoryError) as caught:
        open_store(*folders)
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.filename is not None
    assert before.items() <= tree(tmp_path).items()


@pytest.mark.parametrize(
    "working",
    [
        "storage",
        "storage/",
        "storage/x/..",
        "../{parent}/storage",
        ".",
        "..",
        "/",
        "link",
        "link/..",
    ],
)
def test_a_working_dir_that_is_or_contains_the_storage_is_refused(
    tmp_path: Path, working: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("storage" if working == "link" else "storage/below")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="working dir") as caught:
        open_store("storage", working.format(parent=tmp_path.name))
    assert isinstance(caught.value, OptionError)
    assert caught.value.option == "working_dir"
    assert tree(tmp_path) == before


def test_a_working_dir_in_the_hidden_folder_is_refused(tmp_path: Path) -> None:
    for name in (".txstore", ".txstore/working"):
        error = outcome(open_store, tmp_path / "storage", tmp_path / "storage" / name)
        assert isinstance(error, OptionError)
    assert list(tmp_path.iterdir()) == []


def test_a_working_dir_whose_name_begins_like_the_storages_is_another(tmp_path: Path) -> None:
    with open_store(tmp_path / "storage-2", tmp_path / "storage") as store:
        check_works(store)


# Permissions: only who is not root meets them


def _open_as_nobody(*folders: str) -> str:
    if os.geteuid() == 0:
        become_user(65534, 65534)
    error = outcome(open_store, *folders)
    assert isinstance(error, PermissionError), error
    return str(error.filename)


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A folder that every user may reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    "folders",
    [
        ("locked/storage",),
        ("locked/deep/storage",),
        ("locked",),
        ("open/storage", "locked/working"),
        ("open/storage", "locked"),
        ("secret/inner/storage",),
    ],
    ids=str,
)
def test_missing_permission_is_a_permission_error(
    everyones: Path, folders: tuple[str, ...]
) -> None:
    for name, mode in (("locked", 0o555), ("open", 0o777), ("secret", 0o700)):
        (everyones / name).mkdir()
        (everyones / name).chmod(mode)
    if os.geteuid() != 0:
        (everyones / "secret").chmod(0o000)
    path = apart(_open_as_nobody, *(str(everyones / name) for name in folders))
    assert path.startswith(str(everyones))
    assert list((everyones / "locked").iterdir()) == []


class WholeDisk(Disk):
    """Notes that all of a file system was flushed."""

    flushed = False

    def flush_file_system(self, fd: int) -> None:
        super().flush_file_system(fd)
        self.flushed = True


def _begin_as_nobody(storage: str) -> bool:
    become_user(65534, 65534)
    disk = WholeDisk()
    with open_store(storage, durability="segment", disk=disk) as store:
        begin(store)
        flushed = disk.flushed
        finish(store)
    return flushed


def test_a_folder_made_where_nobody_may_list_is_flushed_before_the_first_answer(
    everyones: Path,
) -> None:
    """A drop box: others may make folders in it, and may not open it to flush their names."""
    (everyones / "box").mkdir()
    (everyones / "box").chmod(0o1733)
    assert apart(_begin_as_nobody, str(everyones / "box" / "storage"))


def _use_as_nobody(storage: str) -> None:
    become_user(65534, 65534)
    with open_store(storage, durability="segment") as store:
        check_works(store)


def test_parents_that_may_only_be_passed_through_are_enough(everyones: Path) -> None:
    """Flushing up to the root needs no permission that the store does not have."""
    (everyones / "pass" / "storage").mkdir(parents=True)
    (everyones / "pass" / "storage").chmod(0o777)
    (everyones / "pass").chmod(0o711)
    apart(_use_as_nobody, str(everyones / "pass" / "storage"))


# Options


@pytest.mark.parametrize(
    "option",
    [
        {"durability": "Segment"},
        {"durability": "full"},
        {"durability": ""},
        {"durability": None},
        {"durability": ["none"]},
        {"expire_after": -1},
        {"expire_after": "7"},
        {"expire_after": None},
        {"expire_after": True},
        {"expire_after": float("nan")},
        {"keep_completed": -0.1},
        {"keep_completed": "1"},
        {"lock_timeout": -1},
        {"lock_timeout": None},
        {"lock_timeout": float("nan")},
        {"mode": 0o400},
        {"mode": 0o200},
        {"mode": 0o700},
        {"mode": 0o1600},
        {"mode": "600"},
        {"mode": True},
        {"mode": None},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    [(name, value)] = option.items()
    with pytest.raises(ValueError, match=name) as caught:
        open_store(tmp_path / "storage", **option)
    assert isinstance(caught.value, OptionError)
    assert caught.value.option == name
    assert caught.value.received is value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digits", [400, 5000])  # Python writes out some 4300 at most
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["expire_after", "keep_completed", "lock_timeout"])
def test_a_length_of_time_that_no_float_can_hold_is_refused(
    tmp_path: Path, name: str, sign: int, digits: int
) -> None:
    value = sign * 10**digits
    options: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=name) as caught:
        open_store(tmp_path / "storage", **options)
    assert caught.value.option == name
    assert caught.value.received is value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [
        *({"durability": level} for level in LEVELS),
        {"expire_after": 0.5},
        {"expire_after": float("inf")},
        {"keep_completed": 0},
        {"lock_timeout": float("inf")},
        {"lock_timeout": 10**6},
        {"mode": 0o660},
        {"mode": 0o640},
    ],
    ids=str,
)
def test_an_option_that_can_be_is_taken(tmp_path: Path, option: dict[str, Any]) -> None:
    with open_store(tmp_path / "storage", **option) as store:
        check_works(store)


# A working dir that cannot be renamed from


def check_other_file_system(storage: Path, working: Path) -> None:
    """Staging lives in the hidden folder on the storage's file system from the start."""
    for level in LEVELS:
        with FileStoreManager(storage, working, durability=level) as store:
            one, two, three = transfer_messages(DATA, SIZE, name=f"{level}/file", file_id=level)
            store.store_segment(one)
            store.store_segment(two)
            assert staged(store) == [DATA[:12]]
            assert [p.read_bytes() for p in (storage / ".txstore" / "staging").iterdir()] == [
                DATA[:12]
            ]
            assert list((working / "staging").iterdir()) == []
        with FileStoreManager(storage, working, durability=level) as store:
            assert store.store_segment(three).file_result == "store"
            check_works(store, level)
            assert staged(store) == []
    assert (storage / "none" / "file").read_bytes() == DATA
    modes = tree(storage / ".txstore")
    assert modes["staging"].mode == "drwx------"


def test_a_working_dir_on_another_file_system_works(tmp_path: Path) -> None:
    others = [Path(one) for one in (DISK, "/dev/shm") if Path(one).is_dir()]
    other = next((one for one in others if one.stat().st_dev != tmp_path.stat().st_dev), None)
    if other is None:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir=other) as working:
        check_other_file_system(tmp_path / "storage", Path(working, "working"))


def _bind_mount(tmp_path: str) -> None:
    """In a process of its own."""
    get_own_mounts()
    source, working = Path(tmp_path, "source"), Path(tmp_path, "working")
    source.mkdir()
    working.mkdir()
    mount("--bind", source, working)
    assert source.stat().st_dev == working.stat().st_dev == Path(tmp_path).stat().st_dev
    check_other_file_system(Path(tmp_path, "storage"), working)


def test_a_working_dir_behind_a_bind_mount_works(tmp_path: Path) -> None:
    apart(_bind_mount, str(tmp_path))


def _same_folder_twice(tmp_path: str) -> None:
    get_own_mounts()
    storage, working = Path(tmp_path, "storage"), Path(tmp_path, "working")
    storage.mkdir()
    working.mkdir()
    mount("--bind", storage, working)
    error = outcome(open_store, storage, working)
    assert isinstance(error, OptionError), error
    assert error.option == "working_dir"
    assert list(storage.iterdir()) == []


def test_a_working_dir_that_is_the_storage_dir_by_a_bind_mount_is_refused(tmp_path: Path) -> None:
    """Else a file that is sent as ``journal.db`` would replace the journal."""
    apart(_same_folder_twice, str(tmp_path))


@pytest.mark.parametrize("level", LEVELS)
def test_folders_whose_names_are_no_text_can_be_opened_again(tmp_path: Path, level: Level) -> None:
    storage, working = (tmp_path / os.fsdecode(name) for name in (b"st\xff", b"work\xfe"))
    for _ in range(2):
        with open_store(storage, working, durability=level) as store:
            begin(store)
            finish(store)
    # And what belongs together is known still.
    with open_store(tmp_path / "other", tmp_path / "others"):
        pass
    assert isinstance(outcome(open_store, tmp_path / "other", working), StoreMismatchError)


# Strays


def test_strays_in_the_working_dir_stop_nothing_and_stay(tmp_path: Path) -> None:
    working = tmp_path / "storage" / ".workdir"
    strays = {
        "file": "a file of somebody's",
        "4dbd0e2b-0a1c-4b3c-8ec5-1a2b3c4d5e6f/file": "left by upstream",
        "staging/file": "left by upstream: the client chose the id",
        "locks/file": "left by upstream",
        "reserve/file": "left by upstream",
        "journal/file": "left by upstream",
        "new-0123456789abcdef/file": "looks a little like ours",
        "staging/w00-not-ours": "looks a little like ours",
        ".hidden": "",
    }
    for name, text in strays.items():
        path = working / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (working / "dangling").symlink_to("nowhere")
    (working / "empty folder").mkdir()
    os.mkfifo(working / "pipe")
    for level in (*LEVELS, "none"):
        with FileStoreManager(
            tmp_path / "storage", durability=level, expire_after=0, keep_completed=0
        ) as store:
            check_works(store, level)
            store.expire()
    for name, text in strays.items():
        assert (working / name).read_text(encoding="utf-8") == text
    assert (working / "dangling").is_symlink()
    assert (working / "empty folder").is_dir()
    assert (working / "pipe").is_fifo()


def test_what_upstream_left_unfinished_is_not_purged(tmp_path: Path) -> None:
    upstream = pytest.importorskip("dxlfiletransferclient.store")
    theirs = upstream.FileStoreManager(str(tmp_path))
    theirs.store_segment(message(b"half", segment_number="1", file_id="unfinished"))
    with open_store(tmp_path) as store:
        assert store.status("unfinished") is None
        check_works(store, "unfinished")
    assert (tmp_path / ".workdir" / "unfinished" / "file").read_bytes() == b"half"


# Folders that belong together


def begin(store: FileStoreManager) -> None:
    send(store, transfer_messages(DATA, SIZE)[:2])


def finish(store: FileStoreManager) -> None:
    found = store.status("transfer")
    assert found is not None
    assert (found.segments_received, found.bytes_received) == (2, 12)
    assert send(store, transfer_messages(DATA, SIZE)[2:]).file_result == "store"
    assert published(store)["file.bin"] == DATA


def mismatched(storage: Path, working: Path) -> StoreMismatchError:
    """What is refused changes nothing in the two stores."""
    before = tree(storage), tree(working)
    with pytest.raises(ValueError, match="belongs together") as caught:
        open_store(storage, working)
    assert isinstance(caught.value, StoreMismatchError)
    assert caught.value.storage_dir == str(storage)
    assert caught.value.working_dir == str(working)
    assert str(storage) in str(caught.value)
    assert tree(storage) == before[0]
    assert before[1].items() <= tree(working).items()
    return caught.value


def test_the_folders_of_two_stores_cannot_be_swapped(tmp_path: Path) -> None:
    for one in ("1", "2"):
        with open_store(tmp_path / f"storage{one}", tmp_path / f"working{one}") as store:
            begin(store)
    mismatched(tmp_path / "storage1", tmp_path / "working2")
    mismatched(tmp_path / "storage2", tmp_path / "working1")
    for one in ("1", "2"):
        with open_store(tmp_path / f"storage{one}", tmp_path / f"working{one}") as store:
            finish(store)


@pytest.mark.parametrize("use", ["open", "closed"])
def test_a_storage_in_use_takes_no_other_working_dir(tmp_path: Path, use: str) -> None:
    store = open_store(tmp_path / "storage", tmp_path / "working")
    begin(store)
    if use == "closed":
        store.close()
    (tmp_path / "other").mkdir()
    mismatched(tmp_path / "storage", tmp_path / "other")
    # Nor the default one, which lies in the storage.
    with pytest.raises(StoreMismatchError):
        open_store(tmp_path / "storage")
    store.close()
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        finish(store)


def test_a_working_dir_in_use_takes_no_other_storage(tmp_path: Path) -> None:
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        begin(store)
    (tmp_path / "other").mkdir()
    mismatched(tmp_path / "other", tmp_path / "working")
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        finish(store)


@pytest.mark.parametrize("working", [None, "parent/working"], ids=["inside", "apart"])
@pytest.mark.parametrize("how", [os.rename, shutil.copytree], ids=["moved", "copied"])
def test_a_pair_that_is_moved_or_restored_together_goes_on(
    tmp_path: Path, working: str | None, how: Callable[[Path, Path], object]
) -> None:
    def folders(home: Path) -> tuple[Path, Path | None]:
        return home / "storage", home / working if working else None

    with open_store(*folders(tmp_path / "old")) as store:
        begin(store)
        send(store, transfer_messages(DATA, SIZE, name="kept", file_id="kept"))
    how(tmp_path / "old", tmp_path / "new")
    with open_store(*folders(tmp_path / "new")) as store:
        # The record of what was finished came along.
        again = transfer_messages(DATA, SIZE, name="kept", file_id="kept")[-1]
        assert store.store_segment(again).file_result == "store"
        finish(store)
        check_works(store)


def test_two_folders_moved_apart_go_on(tmp_path: Path) -> None:
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        begin(store)
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "working", tmp_path / "elsewhere" / "working")
    with open_store(tmp_path / "storage", tmp_path / "elsewhere" / "working") as store:
        finish(store)


def test_a_working_dir_that_was_given_up_can_be_another(tmp_path: Path) -> None:
    """It was damaged and moved away, say: the files stay, and the store begins afresh."""
    with open_store(tmp_path / "storage", tmp_path / "working") as store:
        begin(store)
        send(store, transfer_messages(DATA, SIZE, name="kept", file_id="kept"))
    shutil.rmtree(tmp_path / "working")
    for working in (tmp_path / "working", tmp_path / "other"):
        with open_store(tmp_path / "storage", working) as store:
            assert store.transfers() == []
            assert published(store)["kept"] == DATA
            begin(store)
            finish(store)
        shutil.rmtree(working)


# Closing


class Gate(Disk):
    """Stops whoever writes to a file once it is shut, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.opened.set()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if not self.opened.is_set():
            self.reached.set()
            assert self.opened.wait(60)
        return super().pwrite(fd, data, offset)


@at_each_level
def test_close_waits_for_calls_in_flight(tmp_path: Path, level: Level) -> None:
    gate, happened = Gate(), []
    store = FileStoreManager(tmp_path, durability=level, disk=gate)
    one, two, three = transfer_messages(DATA, SIZE)
    store.store_segment(one)

    def take() -> None:
        happened.append(("answered", store.store_segment(two).segments_received))

    def close() -> None:
        closing.set()
        store.close()
        happened.append(("closed", 0))

    closing = threading.Event()
    gate.opened.clear()
    threads = [threading.Thread(target=take), threading.Thread(target=close)]
    threads[0].start()
    assert gate.reached.wait(60)
    threads[1].start()
    assert closing.wait(60)
    # It lets nobody in any more, which shows that it is waiting.
    while not isinstance(outcome(store.status, "other"), StoreClosedError):
        pass
    threads[1].join(0.1)
    assert happened == []
    gate.opened.set()
    for thread in threads:
        thread.join(60)
    assert happened == [("answered", 2), ("closed", 0)]
    with FileStoreManager(tmp_path, durability=level) as store:
        assert store.store_segment(three).file_result == "store"


def test_two_threads_may_close_and_both_wait(tmp_path: Path) -> None:
    gate = Gate()
    store = open_store(tmp_path, disk=gate)
    gate.opened.clear()
    message_one = message(b"1", segment_number="1", file_id="one")
    taking = threading.Thread(target=store.store_segment, args=(message_one,))
    taking.start()
    assert gate.reached.wait(60)
    closing = [threading.Thread(target=store.close) for _ in range(2)]
    for thread in closing:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    gate.opened.set()
    for thread in (taking, *closing):
        thread.join(60)
        assert not thread.is_alive()


def test_a_closed_manager_refuses_every_call(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begin(store)
    store.close()
    before = tree(tmp_path)
    calls: list[tuple[Callable[..., Any], Any]] = [
        (store.store_segment, transfer_messages(DATA, SIZE)[2]),
        (store.store_segment, transfer_messages(DATA, 100)[0]),
        (store.store_segment, message(file_id="transfer", result="cancel")),
        (store.status, "transfer"),
        (store.cancel, "transfer"),
    ]
    for call, argument in calls:
        with pytest.raises(StoreClosedError, match="is closed"):
            call(argument)
    for method in (store.transfers, store.expire, store.__enter__):
        with pytest.raises(StoreClosedError, match="Open another"):
            method()
    assert isinstance(StoreClosedError(), RuntimeError)
    assert tree(tmp_path) == before
    # What it is about can still be asked.
    assert store.storage_dir == str(tmp_path)
    with open_store(tmp_path) as store:
        finish(store)


def test_close_may_be_called_again_and_leaves_other_managers_alone(tmp_path: Path) -> None:
    store, other = open_store(tmp_path), open_store(tmp_path)
    begin(store)
    store.close()
    store.close()
    finish(other)
    other.close()
    store.close()


def test_a_manager_is_a_context_manager(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store as entered:
        assert entered is store
        begin(store)
    assert isinstance(outcome(store.transfers), StoreClosedError)
    error = KeyError("comes through")
    with pytest.raises(KeyError) as caught, open_store(tmp_path) as store:
        raise error
    assert caught.value is error
    assert isinstance(outcome(store.transfers), StoreClosedError)


# Descriptors


@pytest.fixture
def opened_before(tmp_path: Path) -> list[str]:
    """What is open before a manager is: the first one of a process imports and looks things up."""
    with open_store(tmp_path / "first"):
        pass
    gc.collect()
    return descriptors()


@at_each_level
@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_manager_that_ends_leaves_no_descriptor(
    tmp_path: Path, opened_before: list[str], level: Level, end: str
) -> None:
    store = FileStoreManager(tmp_path / "storage", durability=level)
    check_works(store)
    send(store, transfer_messages(DATA, SIZE, name="deep/er/file", file_id="deep"))
    begin(store)
    assert isinstance(outcome(store.cancel, "a.b"), ValueError)
    assert isinstance(outcome(store.store_segment, message(segment_number="9")), ValueError)
    store.expire()
    assert len(descriptors()) > len(opened_before)
    if end == "close":
        store.close()
    del store
    gc.collect()
    assert descriptors() == opened_before
    with FileStoreManager(tmp_path / "storage", durability=level) as store:
        finish(store)


def test_a_dropped_manager_is_collected_without_the_collectors_help(
    tmp_path: Path, opened_before: list[str]
) -> None:
    gc.disable()
    try:
        for _ in range(20):
            begin(open_store(tmp_path / "storage"))
            open_store(tmp_path / "storage").cancel("transfer")
        assert descriptors() == opened_before
    finally:
        gc.enable()


class WaitingDisk(Disk):
    """Counts how often a lock was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def try_lock(self, fd: int, byte: int) -> bool:
        self.asked += 1
        return super().try_lock(fd, byte)


class CollectingDisk(Disk):
    """Has the collector run when the journal lock is about to be let go."""

    def unlock(self, fd: int, byte: int) -> None:
        if byte == JOURNAL_BYTE:
            gc.collect()
        super().unlock(fd, byte)


def test_a_manager_collected_while_another_has_the_journal_holds_nobody_up(
    tmp_path: Path, opened_before: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The collector runs at any moment, also in the thread that has the lock: waiting for it there
    would be waiting for oneself."""
    disk = WaitingDisk()
    gc.disable()
    try:
        with open_store(tmp_path, disk=CollectingDisk()) as store:
            begin(store)
            dropped: list[Any] = [open_store(tmp_path, disk=disk)]
            dropped[0].status("transfer")
            gone = weakref.ref(dropped[0])
            dropped.append(dropped)  # what is in a cycle waits for the collector
            disk.asked = 0
            del dropped
            assert gone() is not None
            finish(store)
            assert gone() is None
    finally:
        gc.enable()
    assert disk.asked < 10  # not again and again
    assert caplog.records == []
    assert descriptors() == opened_before


class FailingDisk(Disk):
    """Fails at its n-th call, whichever that is."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        # A close that fails has closed all the same.
        harmless = ("close", "inode_behind", "sqlite_connection")
        if name.startswith("_") or not callable(found) or name in harmless:
            return found
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, f"{name} was made to fail")
        return found


@pytest.mark.parametrize("kind", ["new", "known"])
def test_an_open_that_fails_anywhere_leaves_no_descriptor_and_can_be_repeated(
    tmp_path: Path, opened_before: list[str], kind: str
) -> None:
    """The disk fails at each call in turn."""
    failures = 0
    for at in range(1, 1000):
        storage = tmp_path / (str(at) if kind == "new" else "storage")
        if kind == "known" and at == 1:
            with open_store(storage) as store:
                begin(store)
        disk = FailingDisk(at)
        error = outcome(open_store, storage, durability="segment", disk=disk)
        if isinstance(error, FileStoreManager):
            error.close()
            del error
            if disk.left > 0:
                break  # it was open before the failure was due
        else:
            assert isinstance(error, OSError), error
            assert error.errno == errno.EIO
            failures += 1
            del error
        assert descriptors() == opened_before
        if kind == "new" or at % 10 == 0 or FULL:
            with open_store(storage) as store:
                check_works(store, str(at))
    assert failures > 10
    with open_store(storage) as store:
        finish(store) if kind == "known" else check_works(store)


def test_a_store_that_is_refused_leaves_no_descriptor(
    tmp_path: Path, opened_before: list[str]
) -> None:
    for one in ("1", "2"):
        open_store(tmp_path / f"storage{one}", tmp_path / f"working{one}").close()
    (tmp_path / "file").touch()
    for folders in (("storage1", "working2"), ("storage1",), ("file",), ("storage1", "file")):
        assert isinstance(
            outcome(open_store, *(tmp_path / name for name in folders)), (ValueError, OSError)
        )
    (tmp_path / "working1" / "journal.db").write_bytes(b"not a journal" * 1000)
    assert isinstance(outcome(open_store, tmp_path / "storage1", tmp_path / "working1"), OSError)
    gc.collect()
    assert descriptors() == opened_before
