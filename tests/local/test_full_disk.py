"""A full disk: nothing is lost, what needs no space works, and all goes on once there is some.

On small file systems of its own, in a user namespace, which needs no root.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from crew import apart, cancel, cut, forked, last, segment, staging_files, visible
from small_disks import BIG, SMALL, fill, here, small_disk
from support import at_each_level, get_own_mounts

from txstore import FileStoreManager
from txstore.errors import JournalError
from txstore.options import Level

pytestmark = pytest.mark.promise(6)


def is_full(error: OSError) -> bool:
    return error.errno == errno.ENOSPC


def begin(store: FileStoreManager, *file_ids: str) -> None:
    for file_id in file_ids:
        assert store.store_segment(segment(file_id, 1, SMALL)).segments_received == 1


def needs_space(store: FileStoreManager) -> None:
    """Send what needs space: all of it is refused by the kernel, again and again."""
    for _ in range(3):
        for message in (
            segment("open", 2, BIG),
            last("open", 2, BIG, "open", SMALL + BIG),
            segment("other", 1, BIG),
            last("single", 1, BIG, "single", BIG),
            last("single", 1, BIG, "old", BIG),
        ):
            with pytest.raises(OSError, match=r"No space|full") as caught:
                store.store_segment(message)
            assert is_full(caught.value), caught.value


def needs_none(store: FileStoreManager) -> None:
    """Do what has to work without space, for the transfers "open", "one" and "two"."""
    assert {one.file_id for one in store.transfers()} == {"open", "one", "two"}
    for file_id in ("open", "one", "two"):
        found = store.status(file_id)
        assert found is not None
        assert (found.segments_received, found.bytes_received) == (1, len(SMALL))
    assert store.status("unknown") is None
    assert store.store_segment(segment("one", 1, SMALL)).segments_received == 1
    assert store.store_segment(cancel("one")).to_dict() == {
        "file_id": "one",
        "segments_received": 1,
        "result": "cancel",
    }
    assert store.cancel("two").segments_received == 1
    assert {one.file_id for one in store.transfers()} == {"open"}
    assert len(staging_files(Path(store.working_dir))) == 1


def goes_on(store: FileStoreManager) -> None:
    """With space again the transfer "open" is where it was."""
    assert store.store_segment(segment("open", 2, BIG)).segments_received == 2
    store.store_segment(last("open", 3, SMALL, "open", SMALL + BIG + SMALL))
    store.store_segment(last("single", 1, BIG, "single", BIG))
    assert visible(Path(store.storage_dir)) == {
        "old": b"old",
        "open": SMALL + BIG + SMALL,
        "single": BIG,
    }
    assert store.transfers() == []


def prepared(store: FileStoreManager) -> None:
    store.store_segment(last("old", 1, b"old", "old", b"old"))
    begin(store, "open", "one", "two")


# --- one file system for everything --------------------------------------------------------------


def live_manager(tmp: Path, level: Level) -> None:
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    with FileStoreManager(disk / "storage", durability=level) as store:
        prepared(store)
        hog = fill(disk)
        needs_space(store)
        assert visible(disk / "storage") == {"old": b"old"}
        needs_none(store)
        needs_space(store)
        hog.unlink()
        goes_on(store)


@at_each_level
def test_live_manager_loses_nothing_on_a_full_disk(tmp_path: Path, level: Level) -> None:
    apart(live_manager, tmp_path, level)


def other_manager(tmp: Path, level: Level, run: Callable[..., None], closed: bool) -> None:
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    store = FileStoreManager(disk / "storage", durability=level)
    prepared(store)
    if closed:
        store.close()
    hog = fill(disk)
    run(opened_while_full, disk, level)
    hog.unlink()
    with FileStoreManager(disk / "storage", durability=level) as after:
        goes_on(after)


def opened_while_full(disk: Path, level: Level) -> None:
    with FileStoreManager(disk / "storage", durability=level) as store:
        fill(disk)  # what opening may have given back
        needs_space(store)
        needs_none(store)


@pytest.mark.parametrize("closed", [True, False], ids=["closed before", "others open"])
@at_each_level
def test_manager_opened_on_a_full_disk_works(tmp_path: Path, level: Level, closed: bool) -> None:
    apart(other_manager, tmp_path, level, here, closed)


@pytest.mark.parametrize("closed", [True, False], ids=["closed before", "others open"])
@at_each_level
def test_process_begun_on_a_full_disk_works(tmp_path: Path, level: Level, closed: bool) -> None:
    apart(other_manager, tmp_path, level, forked, closed)


def expiring(tmp: Path, level: Level, reopened: bool) -> None:
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    with FileStoreManager(disk / "storage", durability=level) as store:
        prepared(store)
    store = FileStoreManager(disk / "storage", durability=level, expire_after=0)
    if reopened:
        store.close()
    fill(disk)
    if reopened:
        store = FileStoreManager(disk / "storage", durability=level, expire_after=0)
    with store:
        assert sorted(store.expire()) == ["one", "open", "two"]
        assert store.transfers() == []
        assert staging_files(Path(store.working_dir)) == []


@pytest.mark.parametrize("reopened", [False, True], ids=["live", "opened on it"])
@at_each_level
def test_expiry_works_on_a_full_disk(tmp_path: Path, level: Level, reopened: bool) -> None:
    apart(expiring, tmp_path, level, reopened)


def many(tmp: Path, level: Level) -> None:
    """Recording uses up the log's reserve; cancelling must work all the same, however often."""
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    names = [f"many{number}" for number in range(120)]
    with FileStoreManager(disk / "storage", durability=level) as store:
        begin(store, *names)
        hog = fill(disk)
        number = 2
        # Empty segments take no space of their own, only that of their records.
        with suppress(OSError):
            while number < 300:
                store.store_segment(segment(names[0], number, b""))
                number += 1
        for name in names[1:]:
            fill(disk)  # somebody else takes what the last one freed
            assert store.cancel(name).segments_received == 1
        [found] = store.transfers()
        assert (found.file_id, found.segments_received) == (names[0], number - 1)
        hog.unlink()
        data = SMALL + b"end"
        store.store_segment(last(names[0], number, b"end", "many", data))
    assert visible(disk / "storage") == {"many": data}


@at_each_level
def test_any_number_of_cancels_works_on_a_full_disk(tmp_path: Path, level: Level) -> None:
    apart(many, tmp_path, level)


def first_opening(tmp: Path, level: Level) -> None:
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    hog = fill(disk)
    with pytest.raises(OSError, match=r"No space|full") as caught:
        FileStoreManager(disk / "storage", durability=level)
    assert is_full(caught.value)
    hog.unlink()
    with FileStoreManager(disk / "storage", durability=level) as store:
        prepared(store)
        needs_none(store)
        goes_on(store)


@at_each_level
def test_store_first_opened_on_a_full_disk_opens_once_there_is_space(
    tmp_path: Path, level: Level
) -> None:
    apart(first_opening, tmp_path, level)


def every_size(tmp: Path, level: Level) -> None:
    """Whatever the step that meets the end of the disk: the message can be sent again."""
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    data = b"0123456789abcdef" * 1000
    messages = cut(data, 3, file_id="new", name="a/new/folder/file")
    with FileStoreManager(disk / "storage", durability=level) as store:
        begin(store, "one")
        for pages in range(24):
            hog = fill(disk)
            os.truncate(hog, hog.stat().st_size - pages * 4096)
            sent = 0
            try:
                for message in messages:
                    store.store_segment(message)
                    sent += 1
            except OSError as error:
                if not is_full(error):
                    raise
            hog.unlink()
            for message in messages[sent:]:
                store.store_segment(message)
            path = disk / "storage" / "a/new/folder/file"
            assert path.read_bytes() == data, pages
            path.unlink()
            os.removedirs(path.parent)
            store.cancel("new")
        assert [one.file_id for one in store.transfers()] == ["one"]


@at_each_level
def test_message_can_be_sent_again_wherever_the_space_ended(tmp_path: Path, level: Level) -> None:
    apart(every_size, tmp_path, level)


def take_all_inodes(disk: Path) -> Path:
    """The folder whose files have them."""
    hogs = disk / "hogs"
    hogs.mkdir()
    with suppress(OSError):
        for number in range(300):
            (hogs / str(number)).touch()
    return hogs


def no_inodes(tmp: Path, level: Level) -> None:
    """A file system can also be full of files."""
    get_own_mounts()
    disk = small_disk(tmp / "disk", options="size=4m,nr_inodes=300")
    with FileStoreManager(disk / "storage", durability=level) as store:
        prepared(store)
        hogs = take_all_inodes(disk)
        for message in (segment("other", 1, SMALL), last("single", 1, SMALL, "single", SMALL)):
            with pytest.raises(OSError, match="No space") as caught:
                store.store_segment(message)
            assert is_full(caught.value)
        assert len(store.transfers()) == 3
        for number in range(100):  # ids whose lock nobody has needed yet
            assert store.status(f"unknown{number}") is None
            assert store.cancel(f"unknown{number}").segments_received == 0
        for name in ("one", "two"):
            assert store.status(name) is not None
            assert store.cancel(name).segments_received == 1
        for path in hogs.iterdir():
            path.unlink()
        goes_on(store)


@at_each_level
def test_disk_full_of_files_is_a_full_disk(tmp_path: Path, level: Level) -> None:
    apart(no_inodes, tmp_path, level)


def opened_without_inodes(tmp: Path, level: Level, used: bool) -> None:
    """Opened before they were gone and not used until then, and closed before and opened then."""
    get_own_mounts()
    disk = small_disk(tmp / "disk", options="size=4m,nr_inodes=300")
    with FileStoreManager(disk / "storage", durability=level) as store:
        prepared(store)
    unused = None if used else FileStoreManager(disk / "storage", durability=level)
    hogs = take_all_inodes(disk)
    with unused or FileStoreManager(disk / "storage", durability=level) as store:
        assert len(store.transfers()) == 3
        assert store.status("unknown") is None
        with suppress(OSError):  # refused, or not: one opened now gave up its reserve, a file
            store.store_segment(segment("other", 1, SMALL))
        for name in ("one", "two"):
            assert store.status(name) is not None
            assert store.cancel(name).segments_received == 1
        store.cancel("other")
    for path in hogs.iterdir():
        path.unlink()
    with FileStoreManager(disk / "storage", durability=level) as store:
        goes_on(store)


@pytest.mark.parametrize("used", [False, True], ids=["opened before", "closed before"])
@at_each_level
def test_store_is_opened_where_no_inode_is_left(tmp_path: Path, level: Level, used: bool) -> None:
    apart(opened_without_inodes, tmp_path, level, used)


# --- storage and working dir on different ones ---------------------------------------------------


def two_disks(tmp: Path, level: Level, full: str) -> None:
    get_own_mounts()
    disks = {name: small_disk(tmp / name) for name in ("storage", "working")}
    storage, working = disks["storage"] / "storage", disks["working"] / "working"
    with FileStoreManager(storage, working, durability=level) as store:
        prepared(store)
        hog = fill(disks[full])
        assert len(staging_files(working)) == 0
        if full == "storage":  # where the staging is, since the working dir cannot be renamed from
            needs_space(store)
            assert len(store.transfers()) == 3
        else:
            with pytest.raises(JournalError) as caught:
                record_until_full(store)
            assert is_full(caught.value)
            assert caught.value.__cause__ is not None
            assert caught.value.filename.startswith(str(working))
        for name in ("one", "two"):
            assert store.status(name) is not None
            assert store.cancel(name).segments_received == 1
        more = [one.file_id for one in store.transfers() if one.file_id.startswith("more")]
        for name in more[:10]:
            assert store.cancel(name).segments_received == 1
        hog.unlink()
        for name in more[10:]:
            store.cancel(name)
        goes_on(store)
        assert list((storage / ".txstore" / "staging").iterdir()) == []


def record_until_full(store: FileStoreManager) -> None:
    """Until the log's reserve is used up too."""
    for number in range(5000):
        store.store_segment(segment(f"more{number}", 1, b""))


@pytest.mark.parametrize("full", ["storage", "working"])
@at_each_level
def test_one_of_two_disks_is_full(tmp_path: Path, level: Level, full: str) -> None:
    apart(two_disks, tmp_path, level, full)


# --- a limit on the size of files ----------------------------------------------------------------


def size_limit(storage: Path, level: Level) -> None:
    """SIGXFSZ is ignored by Python, so the limit comes out as EFBIG."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FileStoreManager(storage, durability=level) as store:
        prepared(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(BIG), most))
        for message in (segment("open", 2, BIG), last("s", 1, BIG + SMALL, "s", BIG + SMALL)):
            for _ in range(3):
                with pytest.raises(OSError, match="too large") as caught:
                    store.store_segment(message)
                assert caught.value.errno == errno.EFBIG
        assert visible(storage) == {"old": b"old"}
        needs_none(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        goes_on(store)


@at_each_level
def test_limit_on_the_size_of_files_loses_nothing(tmp_path: Path, level: Level) -> None:
    apart(size_limit, tmp_path / "storage", level)
