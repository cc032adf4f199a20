"""What stands around the transfers: file systems, space, permissions, and whose files there are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from stat import S_IMODE, S_ISDIR

from txstore.checks import Finding, finding
from txstore.errors import LockTimeoutError
from txstore.local.files.folders import JOURNAL, LOCKS, MARKER, STAGING, TEMPORARY_MARKER
from txstore.local.files.machine import is_network
from txstore.local.files.places import STAGING_NAME
from txstore.local.journal.making import TEMPORARY
from txstore.local.lockfile import LOCK_FILE
from txstore.local.looking.look import Look
from txstore.protocol.names import HIDDEN

#: What unusual days need: a full disk's cancel, the journal's log, SQLite's index on Btrfs.
ROOM, INODES = 10 * 1024 * 1024, 64
#: File systems that have no hard links: no journal can be made there.
_WITHOUT_LINKS = frozenset(["exfat", "msdos", "vfat"])
_IN_WORKING_DIR = re.compile(
    rf"(journal\.(db(-wal|-shm)?|reserve|spare-[0-9])|{LOCKS}|{STAGING})\Z"
)
_IN_LOCKS, _IN_HIDDEN = re.compile(rf"{LOCK_FILE}\Z"), re.compile(rf"({MARKER}|{STAGING})\Z")
_MADE_BY_MKFS = "lost+found"
_OTHERS, _GROUP_SHARES = 0o007, 0o060


class Surroundings:
    """Looks at what is not a transfer's.  For one thread."""

    def __init__(self, look: Look) -> None:
        self._look, self._found, self._disk = look, look.found, look.disk

    def findings(self) -> Iterator[Finding]:
        """All that is wrong there."""
        yield from self._file_system()
        yield from self._space()
        yield from self._permissions()
        yield from self._strangers()

    # --- file systems ------------------------------------------------------------------------

    def _file_system(self) -> Iterator[Finding]:
        fstype = self._disk.file_system(self._found.working)
        problem = ""
        if is_network(fstype):
            problem = "locks and shared memory cannot be relied on over a network"
        elif fstype in _WITHOUT_LINKS:
            problem = "it has no hard links"
        if problem:
            path = self._found.working_dir
            yield finding("file-system", path=path, fstype=fstype, problem=problem)

    def _space(self) -> Iterator[Finding]:
        looked: set[int] = set()
        for path, fd in (
            (self._found.working_dir, self._found.working),
            (self._found.storage_dir, self._found.storage),
        ):
            device = self._disk.fstat(fd).st_dev
            if device in looked:
                continue
            looked.add(device)
            free, _ = self._disk.space(fd)
            if free < ROOM:
                yield finding("space", path=path, free=free, of="bytes", wanted=ROOM)
            inodes = self._disk.free_inodes(fd)
            if inodes is not None and inodes < INODES:
                yield finding("space", path=path, free=inodes, of="inodes", wanted=INODES)

    # --- permissions -------------------------------------------------------------------------

    def _permissions(self) -> Iterator[Finding]:
        own = dict(self._own())
        journal = own.get(self._found.journal_path)
        if journal is None:
            return
        lock_file = own.get(os.path.join(self._found.locks_path, LOCK_FILE), journal)
        allowed = journal.st_mode & lock_file.st_mode & _OTHERS
        for path, found in own.items():
            mode = S_IMODE(found.st_mode)
            # Whoever may read a file may enter its folder.
            enter = (allowed & 0o4) >> 2 if S_ISDIR(found.st_mode) else 0
            if mode & _OTHERS & ~(allowed | enter):
                yield finding(
                    "open-to-others", path=path, mode=f"{mode:04o}", allowed=allowed | enter
                )
            elif not is_usable(found, journal):
                owner = f"{found.st_uid}:{found.st_gid}"
                yield finding("shut-to-workers", path=path, owner=owner, mode=f"{mode:04o}")

    def _own(self) -> Iterator[tuple[str, os.stat_result]]:
        """What must be nobody else's, and usable to all workers."""
        names = (
            JOURNAL,
            JOURNAL + "-wal",
            JOURNAL + "-shm",
            LOCKS,
            f"{LOCKS}/{LOCK_FILE}",
            STAGING,
        )
        paths = [os.path.join(self._found.working_dir, name) for name in names]
        for path in (*paths, self._found.staging_folder_path("s")):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = self._disk.stat(path)
                # SQLite's two get their owner and mode after they were made, while they are empty.
                if found.st_size or not path.endswith(("-wal", "-shm")):
                    yield path, found

    # --- whose files there are ---------------------------------------------------------------

    def _strangers(self) -> Iterator[Finding]:
        hidden = os.path.join(self._found.storage_dir, HIDDEN)
        yield from self._strangers_in(self._found.working_dir, _IN_WORKING_DIR, TEMPORARY)
        yield from self._strangers_in(self._found.locks_path, _IN_LOCKS)
        yield from self._strangers_in(hidden, _IN_HIDDEN, TEMPORARY_MARKER)
        for letter in self._found.stagings:
            yield from self._strangers_in(self._found.staging_folder_path(letter), STAGING_NAME)

    def _strangers_in(
        self, folder: str, ours: re.Pattern[str], temporary: re.Pattern[str] | None = None
    ) -> Iterator[Finding]:
        try:
            fd = self._disk.open_folder(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            names = sorted(self._disk.list_folder(fd))
        finally:
            self._disk.close(fd)
        for name in names:
            path = os.path.join(folder, name)
            if ours.match(name) or name == _MADE_BY_MKFS:
                continue
            if temporary is None or not temporary.match(name):
                yield finding("foreign", path=path)
            else:
                yield from self._left(path)

    def _left(self, path: str) -> Iterator[Finding]:
        """A temporary file that nobody is making: who does has the journal lock."""

        def is_there() -> bool:
            try:
                self._disk.stat(path)
            except FileNotFoundError:
                return False
            return True

        try:
            if self._look.locks.with_journal(self._look.deadline(), is_there):
                yield finding("leftover", path=path)
        except LockTimeoutError as error:
            yield finding("busy", subject=path, seconds=error.timeout)


def is_usable(found: os.stat_result, journal: os.stat_result) -> bool:
    """Whether all who can work with the journal can work with another of the store's files."""
    bits = 0o7 if S_ISDIR(found.st_mode) else 0o6
    if journal.st_mode & _GROUP_SHARES == _GROUP_SHARES:
        return found.st_gid == journal.st_gid and found.st_mode >> 3 & bits == bits
    return found.st_uid == journal.st_uid and found.st_mode >> 6 & bits == bits
