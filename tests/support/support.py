"""What several test files share: messages, looking at a store from outside, other processes."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import pytest
from dxlclient.message import Request
from hypothesis import settings

from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.disk import Disk
from txstore.local.lockfile import JOURNAL_BYTE, LOCK_FILE, STRIPES, name_byte, transfer_byte
from txstore.options import Level
from txstore.protocol.request import Message

if TYPE_CHECKING:
    from cluster_servers import Cluster

P = ParamSpec("P")
T = TypeVar("T")

LEVELS: tuple[Level, ...] = ("segment", "file", "none")

#: Runs a test at each durability level.
at_each_level = pytest.mark.parametrize("level", LEVELS)

#: Runs a test, or those of a module, over two folders and over two servers: those whose stores are
#: opened by ``manager``.  Over servers at one level only, unless everything is done at full size.
over_every_engine = pytest.mark.every_engine
#: In such a module, a test of what only two folders have.
over_two_folders = pytest.mark.two_folders

#: Whether this run is to do everything at full size.
FULL = os.environ.get("TXSTORE_FULL") == "1"

# Every run tries the same examples, so that a failure comes again.
settings.register_profile(
    "txstore",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    max_examples=1000 if FULL else 100,
)
settings.load_profile("txstore")

#: Where temporary folders are on this machine; tests have theirs in memory, see ``use_memory``.
DISK = os.environ.setdefault("TXSTORE_TESTS_DISK", tempfile.gettempdir())

_MEMORY, _ENOUGH = "/dev/shm", 2 << 30


def use_memory() -> None:
    """Have temporary folders where a flush costs nothing, of all processes begun from now on, too;
    unless everything is to be done at full size, or there is not enough of it."""
    with suppress(FileNotFoundError):
        if not FULL and shutil.disk_usage(_MEMORY).free >= _ENOUGH:
            os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY


#: Opens another manager over a test's storage dir: ``manager("file", lock_timeout=1)``.
OpenStore = Callable[..., FileStoreManager]


@contextmanager
def opened_stores(storage_dir: Path) -> Iterator[OpenStore]:
    """A way to open managers, all of which are closed at the end."""
    with ExitStack() as opened:

        def open_store(durability: Level = "none", **options: Any) -> FileStoreManager:
            return opened.enter_context(
                FileStoreManager(storage_dir, durability=durability, **options)
            )

        yield open_store


@contextmanager
def opened_cluster_stores() -> Iterator[OpenStore]:
    """The same over two servers."""
    from cluster_servers import fresh_cluster  # slow to import, and most tests do without

    with fresh_cluster() as cluster, ExitStack() as opened:

        def open_store(durability: Level = "none", **options: Any) -> FileStoreManager:
            return opened.enter_context(
                FileStoreManager(
                    cluster.storage_dir, cluster.working_dir, durability=durability, **options
                )
            )

        yield open_store


class Booted(Disk):
    """The real disk, in a boot of the machine that has this name."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- messages ------------------------------------------------------------------------------------


@dataclass
class PlainMessage:
    """The two attributes that the store reads of a message."""

    payload: Any
    other_fields: Any


def message(payload: Any = b"", **fields: Any) -> PlainMessage:
    return PlainMessage(payload, fields)


def request(payload: bytes = b"", **fields: str) -> Any:
    """A real message, as a service gets it."""
    made = Request("/test/store")
    made.payload = payload
    made.other_fields = fields
    return made


def claim(data: bytes, name: str = "file.bin") -> dict[str, str]:
    """The fields that make a message the last one of a file with that content."""
    return {
        "result": "store",
        "name": name,
        "size": str(len(data)),
        "hash_sha256": sha256(data),
    }


def transfer_messages(
    data: bytes, size: int, *, name: str = "file.bin", file_id: str = "transfer"
) -> list[PlainMessage]:
    """A whole file as its messages; an empty one has one message too."""
    parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    messages = [
        message(part, file_id=file_id, segment_number=str(number))
        for number, part in enumerate(parts, 1)
    ]
    messages[-1].other_fields.update(claim(data, name))
    return messages


def send(store: FileStoreManager, messages: Iterable[Message]) -> FileStoreSegmentResult:
    """Store messages in turn; the last answer."""
    answers = [store.store_segment(one) for one in messages]
    return answers[-1]


def outcome(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
    """What a call answers, or the error that it raises."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the error is the outcome
        return error


# --- a store seen from outside -------------------------------------------------------------------


def journal_of(storage: Path) -> Path:
    return storage / ".workdir" / "journal.db"


class Entry(NamedTuple):
    """One name in a folder; ``content`` is a file's bytes or a link's target."""

    mode: str
    inode: int
    content: bytes


def tree(folder: str | Path) -> dict[str, Entry]:
    """Everything below a folder, but not the lock files, which are made when first needed.

    The journal's own files are listed without their content: a process that closes a descriptor of
    one drops SQLite's locks on it.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        content = b""
        if path.parent.name == "locks":
            continue
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file() and not path.name.startswith("journal.db"):
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = Entry(
            stat.filemode(status.st_mode), status.st_ino, content
        )
    return found


def _cluster_of(store: FileStoreManager) -> Cluster | None:
    """Where a store over two servers is; ``None``: it is in two folders."""
    if not store.storage_dir.startswith("s3://"):
        return None
    from cluster_servers import Cluster  # slow to import, and most tests do without

    return Cluster.of(store.storage_dir, store.working_dir)


def published(store: FileStoreManager) -> dict[str, bytes]:
    """The files that readers of the storage see: all but the store's own folders."""
    if cluster := _cluster_of(store):
        return cluster.files()
    own = {store.working_dir, os.path.join(store.storage_dir, ".txstore")}
    found = {}
    for folder, folders, files in os.walk(store.storage_dir):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in own]
        for name in files:
            path = Path(folder, name)
            found[str(path.relative_to(store.storage_dir))] = path.read_bytes()
    return found


def take_away(store: FileStoreManager, name: str) -> None:
    """Remove a file that was stored, as others can."""
    if cluster := _cluster_of(store):
        cluster.remove(name)
    else:
        os.unlink(os.path.join(store.storage_dir, name))


def folders(store: FileStoreManager) -> set[str]:
    """The folders that readers of the storage see."""
    if cluster := _cluster_of(store):
        parents = (path for key in cluster.files() for path in PurePosixPath(key).parents)
        return {str(path) for path in parents if path.name}
    own = (store.working_dir, os.path.join(store.storage_dir, ".txstore"))
    return {
        str(path.relative_to(store.storage_dir))
        for path in Path(store.storage_dir).rglob("*")
        if path.is_dir() and not path.is_symlink() and not str(path).startswith(own)
    }


def staged(store: FileStoreManager) -> list[bytes]:
    """The content of all staging files."""
    if cluster := _cluster_of(store):
        return cluster.staged()
    places = (Path(store.working_dir, "staging"), Path(store.storage_dir, ".txstore", "staging"))
    return [path.read_bytes() for place in places if place.exists() for path in place.iterdir()]


@contextmanager
def journal_copy(working_dir: str | Path) -> Iterator[sqlite3.Connection]:
    """The journal as it is now, read from a copy that another process makes."""
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in os.listdir(working_dir) if name.startswith("journal.db")]
        paths = [str(Path(working_dir, name)) for name in names if not name.endswith("-shm")]
        subprocess.run(["cp", *paths, folder], check=True)
        with closing(sqlite3.connect(Path(folder, "journal.db"))) as connection:
            yield connection


def journal(working_dir: str | Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables of the journal."""
    with journal_copy(working_dir) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        return {
            name: connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid').fetchall()
            for (name,) in tables
        }


def everything(store: FileStoreManager) -> tuple[object, ...]:
    """The whole state of a store, to compare with what it is later."""
    if cluster := _cluster_of(store):
        return cluster.everything()
    folders = {store.storage_dir, store.working_dir}
    return (*(tree(folder) for folder in sorted(folders)), journal(store.working_dir))


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # of the listing itself
    return sorted(found)


# --- other processes -----------------------------------------------------------------------------


class NotAllowedHereError(Exception):
    """This machine does not let the test do what it needs; the text says what."""


def become_user(uid: int, gid: int) -> None:
    """Give up root, in a process of one's own."""
    if os.geteuid() != 0:
        raise NotAllowedHereError("only root can become another user")
    # What Python imports when it is first needed may lie where only root can read it.
    with tempfile.TemporaryDirectory() as folder, FileStoreManager(folder):
        pass
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def get_own_mounts() -> None:
    """Have what this process mounts be seen by no other."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        raise NotAllowedHereError(f"no user namespace: {os.strerror(ctypes.get_errno())}")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        Path("/proc/self", name).write_text(text, encoding="ascii")
    mount("--make-rprivate", "/")


def mount(*args: str | Path) -> None:
    """Run ``mount``, after ``get_own_mounts``."""
    if shutil.which("mount") is None:
        raise NotAllowedHereError("there is no mount command")
    done = subprocess.run(["mount", *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotAllowedHereError(f"mounting is not allowed: {done.stderr.strip()}")


def lock_file(storage: str | Path) -> Path:
    """The lock file of a store at its default place."""
    return Path(storage, ".workdir", "locks", LOCK_FILE)


_LOCK_NAMES = {JOURNAL_BYTE: "journal"}
for _stripe in range(STRIPES):
    _LOCK_NAMES[transfer_byte(_stripe)] = f"transfer-{_stripe:02x}"
    _LOCK_NAMES[name_byte(_stripe)] = f"name-{_stripe:02x}"


def lock_name(byte: int) -> str:
    """Which lock a byte of the lock file is: its class, and its stripe."""
    return _LOCK_NAMES[byte]


def held_locks(storage: str | Path) -> list[str]:
    """The store's locks that anybody has, as the kernel tells.

    Reading ``/proc/locks`` would keep every process of the machine that locks something waiting.
    """
    fd = os.open(lock_file(storage), os.O_RDWR | os.O_CLOEXEC)
    try:
        return sorted(name for byte, name in _LOCK_NAMES.items() if _is_locked(fd, byte))
    finally:
        os.close(fd)


def _is_locked(fd: int, byte: int) -> bool:
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    return int.from_bytes(answer[:2], sys.byteorder) != fcntl.F_UNLCK
