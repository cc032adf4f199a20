"""Where the bytes of unfinished transfers are: made, found, taken away.

A staging file's name is 128 random bits, never the sender's id (which could escape or clash) and
never a row key (which SQLite uses again).  Before them stand a letter for the folder it lies in
and the stripe of its transfer's lock, so that whoever finds an orphan knows which lock to take::

    w3f-0123456789abcdef0123456789abcdef
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress

from txstore.errors import StagingDamagedError
from txstore.local.files.home import Home
from txstore.local.files.places import is_staging_name
from txstore.local.files.staged import InHand, StagedFile
from txstore.local.journal.rows import Transfer
from txstore.local.locks import stripe_of
from txstore.process.strikes import ignored, pass_on
from txstore.protocol.admission import Space

#: Mode of a staging file that nobody else goes on with.
PRIVATE = 0o600


def stripe_in(name: str) -> int | None:
    """The stripe of the lock that guards a staging file; ``None``: not a name of ours."""
    return int(name[1:3], 16) if is_staging_name(name) else None


def new_name(letter: str, file_id: str) -> str:
    """A name that no staging file has, for one of a transfer.

    :param letter: for the folder that it will lie in
    """
    return f"{letter}{stripe_of(file_id.encode()):02x}-{secrets.token_hex(16)}"


class Staging:
    """The staging folders of one manager.  Thread-safe; ``disown`` in a forked child.

    :ivar in_hand: files that are kept open
    """

    def __init__(self, home: Home) -> None:
        self._home, self._disk = home, home.disk
        self._letter: str | None = None
        self.in_hand = InHand(home.disk)

    @property
    def letter(self) -> str:
        """Where new files go; found out at first use."""
        if self._letter is None:
            self._letter = self._home.staging_letter()
        return self._letter

    @property
    def current(self) -> int:
        """Descriptor of the folder that new files go to."""
        return self._home.staging_folder(self.letter)

    def create(
        self, file_id: str, mode: int | None = None, *, like: os.stat_result | None = None
    ) -> StagedFile:
        """A new, empty staging file for a transfer.  Its name is not durable yet.

        :param mode: permission bits, whatever the umask; ``None``: the store's own
        :param like: a file which shuts out whom it shuts out
        """
        mode = self._home.mode if mode is None else mode
        if like is not None:
            mode &= like.st_mode | PRIVATE
        name = new_name(self.letter, file_id)
        fd = self._disk.create(name, mode, dir_fd=self.folder(name))
        return self._made(file_id, name, fd, mode)

    def create_there(self, file_id: str, folder: int) -> StagedFile:
        """As ``create``, of a private file that can be renamed into a folder of the storage into
        which the kernel moves no other."""
        name = new_name("s", file_id)
        try:
            fd = self._disk.create_there(name, folder, PRIVATE, dir_fd=self.folder(name))
        except OSError as error:
            pass_on(error)
            # Not on this file system.  It may do that it is on the same one, under the same mount.
            fd = self._disk.create(name, PRIVATE, dir_fd=self.folder(name))
        staged = self._made(file_id, name, fd, PRIVATE)
        staged.made_there = True
        return staged

    def _made(self, file_id: str, name: str, fd: int, mode: int) -> StagedFile:
        try:
            if mode & 0o077:
                self._disk.chmod(fd, mode)
            found = self._disk.fstat(fd)
        except BaseException:
            self._disk.close(fd)
            self._disk.unlink(name, dir_fd=self.folder(name))
            raise
        path = self._home.staging_path(name)
        return StagedFile(self._disk, file_id, name, path, fd, found, self.in_hand)

    def open(self, row: Transfer) -> StagedFile:
        """The staging file of a recorded transfer.

        :raises StagingDamagedError: it is gone, or too short
        """
        path = self._home.staging_path(row.staging)
        idle = self.in_hand.take_out(row.file_id)
        try:
            found = self._find(row, path)
        except BaseException:
            if idle is not None:
                idle.close()
            raise
        alone = found.st_nlink == 1
        if idle is not None:
            if idle.name == row.staging and idle.inode == found.st_ino and alone:
                idle.size = found.st_size
                if idle.row is None or idle.row.change != row.change:
                    idle.count_as_others(row)  # another worker went on meanwhile
                idle.row = None
                return idle
            idle.close()
        folder = self.folder(row.staging)
        try:
            fd = self._disk.open(row.staging, dir_fd=folder, write=alone)
        except PermissionError:
            if found.st_uid == os.geteuid():
                raise
            alone = False
            fd = self._disk.open(row.staging, dir_fd=folder, write=False)
        staged = StagedFile(self._disk, row.file_id, row.staging, path, fd, found, self.in_hand)
        staged.writable = alone
        staged.count_as_others(row)
        return staged

    def _find(self, row: Transfer, path: str) -> os.stat_result:
        try:
            found = self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._home.check_staging_in_place(row.staging)
            raise StagingDamagedError(path, row.file_id, "is missing") from None
        if found.st_ino != row.inode:
            self._home.check_staging_in_place(row.staging)
        if found.st_size < row.offset:
            raise StagingDamagedError(path, row.file_id, "is shorter than the journal says")
        return found

    def check_in_place(self, staged: StagedFile) -> None:
        """Check, before something is recorded of a file, that others find the same one.

        :raises ReplacedError: the staging folder is another
        :raises StagingDamagedError: the file is another, or gone
        """
        if not staged.is_in_place():
            raise self.misplaced(staged)

    def misplaced(self, staged: StagedFile) -> Exception:
        """The error for a file that others do not find."""
        self._home.check_staging_in_place(staged.name)
        return StagingDamagedError(staged.path, staged.file_id, "was removed or replaced")

    def trim(self, before: float) -> None:
        """Close files that were kept before a time (monotonic): another worker may have finished
        or dropped their transfers, and their space comes back only when nobody has them open."""
        self.in_hand.close_some(lambda one: one.kept_at < before)

    def remove(self, name: str) -> None:
        """Take a staging file's name away, if it is there."""
        self.in_hand.close_some(lambda one: one.name == name)
        with suppress(FileNotFoundError):  # a power loss, or the worker before, took it
            self._disk.unlink(name, dir_fd=self.folder(name))

    def discard(self, name: str) -> None:
        """Take a staging file away with its bytes, also where another worker has it open still."""
        with ignored:  # then its space comes back when that worker lets go of it
            fd = self._disk.open(name, dir_fd=self.folder(name))
            try:
                if self._disk.fstat(fd).st_nlink == 1:
                    self._disk.truncate(fd, 0)
            finally:
                self._disk.close(fd)
        self.remove(name)

    def has(self, name: str, size: int = 0) -> bool:
        """Whether a staging file is there, with at least ``size`` bytes."""
        try:
            return self._disk.stat(name, dir_fd=self.folder(name)).st_size >= size
        except FileNotFoundError:
            return False

    def folder(self, name: str) -> int:
        """Descriptor of the folder that a staging file lies in."""
        return self._home.staging_folder(name)

    def flush_folder(self, name: str) -> None:
        """Make the name of a staging file, or its absence, durable."""
        self._disk.flush_folder(self.folder(name))

    def space(self) -> Space:
        """What the file system has that new staging files go to, and published ones."""
        return Space._make(self._disk.space(self.current))

    def names(self) -> Iterator[str]:
        """The names in all staging folders."""
        yield from self._disk.list_folder(self._home.staging)
        if self.letter == "s" or self._home.has_hidden_staging():
            yield from self._disk.list_folder(self._home.hidden_staging())

    def is_stranded(self, staged: StagedFile) -> bool:
        """Whether a file was begun where the kernel could rename from, and cannot any more: the
        folders are mounted in another way by now."""
        return staged.name[0] != self.letter and self._home.is_other_mount(
            self.folder(staged.name), self._home.storage
        )

    def close(self) -> None:
        self.in_hand.close_some(lambda _: True)

    def let_go(self) -> None:
        """After a call of this thread was cut off."""
        self.in_hand.let_go()

    def disown(self) -> None:
        """Let go of files that another process opened, or that were closed by their numbers."""
        self.in_hand.disown()
