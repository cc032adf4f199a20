"""Two users, one group that neither has as the first of its own, as ``docs/operating.md`` says to
set that up: either goes on with whatever the other left."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crew import apart, last, segment
from seam import KillingDisk
from support import DISK, NotAllowedHereError, at_each_level

from txstore import FileStoreManager
from txstore.errors import TxStoreError
from txstore.options import Level

GROUP, ALICE, BOB = 54321, 54001, 54002
ONE_AND_SEVERAL = pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])


def become(user: int, umask: int = 0o022) -> None:
    """Be a user with a group of its own, and the common one among the others."""
    if os.geteuid() != 0:
        raise NotAllowedHereError("only root can become another user")
    # What Python imports when it is first needed may lie where only root can read it.
    with tempfile.TemporaryDirectory() as folder, FileStoreManager(folder):
        pass
    os.setgroups([GROUP])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.umask(umask)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Both folders made by hand: ``chgrp GROUP``, ``chmod 2770``."""
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        os.chmod(folder, 0o755)
        for name in ("storage", "working"):
            made = Path(folder, name)
            made.mkdir()
            if os.geteuid() == 0:
                os.chown(made, 0, GROUP)
            made.chmod(0o2770)
        yield Path(folder)


def opened(shared: Path, **options: object) -> FileStoreManager:
    options = {"mode": 0o660, **options}
    return FileStoreManager(shared / "storage", shared / "working", **options)  # type: ignore[arg-type]


def _begin(user: int, shared: Path, umask: int, level: Level) -> None:
    become(user, umask)
    with opened(shared, durability=level) as store:
        for file_id in ("next", "end", "drop", "old", "look"):
            store.store_segment(segment(file_id, 1, b"a" * 100_000))
        store.store_segment(last("done", 1, b"x", "done", b"x"))
        # Killed, not closed: the log and its index stay as SQLite left them.
        os._exit(0)


def _go_on(user: int, shared: Path, level: Level) -> None:
    become(user)
    data = b"a" * 100_000 + b"b"
    with opened(shared, durability=level) as store:
        assert store.store_segment(segment("next", 2, b"b")).segments_received == 2
        assert store.store_segment(segment("next", 2, b"b")).segments_received == 2
        assert store.store_segment(last("end", 2, b"b", "sub/end", data)).file_result == "store"
        assert store.store_segment(last("done", 1, b"x", "done", b"x")).file_result == "store"
        assert store.cancel("drop").segments_received == 1
        status = store.status("look")
        assert status is not None
        assert status.bytes_received == 100_000
        assert len(store.transfers()) == 3
    with opened(shared, durability=level, expire_after=0.0) as store:
        assert set(store.expire()) == {"next", "old", "look"}
    assert (shared / "storage" / "sub" / "end").read_bytes() == data
    assert os.listdir(shared / "working" / "staging") == []


def _ended(function: object, *args: object) -> None:
    """Run in a process that ends in the middle."""
    with pytest.raises(AssertionError, match="ended with 0"):
        apart(function, *args)  # type: ignore[arg-type]


@at_each_level
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], ids=oct)
def test_the_second_user_goes_on_with_everything(shared: Path, level: Level, umask: int) -> None:
    _ended(_begin, ALICE, shared, umask, level)
    apart(_go_on, BOB, shared, level)


def _own(user: int, shared: Path) -> dict[str, tuple[str, int]]:
    """Modes and groups of all that the store has for itself."""
    become(user, 0o077)
    with FileStoreManager(shared / "storage", mode=0o660) as store:
        store.store_segment(segment("begun", 1, b"a"))
        store.store_segment(last("done", 1, b"x", "sub/done", b"x"))
        roots = [shared / "storage" / ".workdir", shared / "storage" / ".txstore"]
        found = {}
        for path in (path for root in roots for path in (root, *root.rglob("*"))):
            facts = path.lstat()
            found[str(path)] = (stat.filemode(facts.st_mode), facts.st_gid)
        return found


def test_all_of_the_stores_own_belongs_to_the_folders_group(shared: Path) -> None:
    found = apart(_own, ALICE, shared)
    assert set(found.values()) == {("drwxrws---", GROUP), ("-rw-rw----", GROUP)}
    assert any("-wal" in path for path in found)


def _die_at(user: int, shared: Path, call: str) -> None:
    """Be killed between making a folder and giving it its mode."""
    become(user, 0o077)
    opened(shared, disk=KillingDisk(1, call))


def _open(user: int, shared: Path) -> None:
    become(user)
    with opened(shared) as store:
        store.store_segment(segment("begun", 1, b"a"))


@pytest.mark.parametrize("call", ["chmod_folder", "chmod"])
def test_who_died_before_a_folder_had_its_mode_gives_it_when_the_store_is_opened_again(
    shared: Path, call: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with pytest.raises(AssertionError, match="-9"):
        apart(_die_at, ALICE, shared, call)
    apart(_open, ALICE, shared)
    apart(_go_on_begun, BOB, shared)


def _go_on_begun(user: int, shared: Path) -> None:
    become(user)
    with opened(shared) as store:
        assert store.store_segment(segment("begun", 2, b"b")).segments_received == 2


def _open_without_mode(user: int, shared: Path) -> None:
    become(user)
    with FileStoreManager(shared / "storage", shared / "working") as store:
        store.store_segment(segment("begun", 1, b"a"))
        for number in range(200):  # locks are made when first used
            store.status(str(number))


def test_who_opens_a_shared_store_without_mode_takes_nothing_from_the_group(shared: Path) -> None:
    """As the command does, which has no such option."""
    apart(_open, BOB, shared)
    apart(_open_without_mode, ALICE, shared)
    apart(_go_on_begun, BOB, shared)


# What the second user can replace


def _put(user: int, shared: Path, umask: int, name: str, count: int, level: Level) -> str:
    become(user, umask)
    data = bytes([user % 256]) * 10
    with opened(shared, durability=level) as store:
        file_id = f"{user}-{count}"
        if count > 1:
            for number in range(1, count):
                store.store_segment(segment(file_id, number, data[:1]))
        message = last(file_id, count, data[count - 1 :], name, data)
        try:
            store.store_segment(message)
        except (TxStoreError, OSError) as error:
            left = [one.segments_received for one in store.transfers()]
            assert left == ([count - 1] if count > 1 else [])
            return type(error).__name__
        assert store.store_segment(message).file_result == "store"
    return "stored"


@at_each_level
@ONE_AND_SEVERAL
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], ids=oct)
def test_what_the_second_user_can_replace(
    shared: Path, level: Level, count: int, umask: int
) -> None:
    """A file in the storage dir itself always; one in a folder that the other user's worker made
    only where the umask left the group the right to write there."""
    for name in ("file", "sub/file"):
        assert apart(_put, ALICE, shared, umask, name, count, level) == "stored"
    assert apart(_put, BOB, shared, umask, "file", count, level) == "stored"
    allowed = "stored" if umask == 0o002 else "PermissionError"
    assert apart(_put, BOB, shared, umask, "sub/file", count, level) == allowed
    storage = shared / "storage"
    assert (storage / "file").read_bytes() == bytes([BOB % 256]) * 10
    kept = BOB if umask == 0o002 else ALICE
    assert (storage / "sub" / "file").read_bytes() == bytes([kept % 256]) * 10


def _repeat(user: int, shared: Path, count: int, level: Level) -> None:
    become(user)
    data = bytes([ALICE % 256]) * 10
    with opened(shared, durability=level) as store:
        message = last(f"{ALICE}-{count}", count, data[count - 1 :], "file", data)
        assert store.store_segment(message).file_result == "store"


@ONE_AND_SEVERAL
@pytest.mark.parametrize("first", ["none", "file"])
def test_the_second_user_answers_a_repeat_of_a_file_that_it_may_not_read(
    shared: Path, count: int, first: str
) -> None:
    apart(_put, ALICE, shared, 0o077, "file", count, first)
    before = (shared / "storage" / "file").stat().st_ino
    apart(_repeat, BOB, shared, count, "segment")
    assert (shared / "storage" / "file").stat().st_ino == before
