"""A disk that really does what it is told, keeps a record of it, and fails when it is told to.

It records on a ``Platter`` what every operation does to the kernel's and to the device's view of
the files.  So at any point it can be asked what a process crash or a power loss would leave.

SQLite does its own I/O.  After each of its calls that can have written, the journal's files are
compared with what is recorded.  The difference is taken down in the order in which SQLite makes it,
with the flushes that it makes at ``synchronous=NORMAL``.  These are: the header of a WAL that
begins anew and, with it, the WAL's name; at a checkpoint first the WAL, then the pages in the
database, then the database.  A commit is not flushed, unless ``synchronous=FULL``.  Which level it
is, is asked of the connection each time.  The database file is read by another process: closing any
descriptor of it in this one would drop SQLite's locks.

Inode numbers are the simulation's own, as small and as soon used again as on a real file system,
and stay the same when a state is built into another folder; so do times of change.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from txstore.disk import Disk
from txstore.testing import operations as ops
from txstore.testing.failing import FailingDisk
from txstore.testing.faults import FaultPlan
from txstore.testing.powerloss import Platter, Tree
from txstore.testing.recording import RecordingDisk
from txstore.testing.sqlite import SimulatedConnection, kind_of

T = TypeVar("T")


class SimulatedDisk(FailingDisk, RecordingDisk):
    """A disk over one real folder, below which the storage and the working dir lie.

    :param root: absolute path of the folder
    :param platter: what is recorded of the folder so far, with ``keys`` as ``Tree.build`` answered
        it; by default what is in the folder now, all of it durable
    :param faults: what goes wrong
    :param boot: identity of this boot of the machine; ``None``: the real one
    :param mounts: subfolders of ``root`` from and to which nothing can be renamed (EXDEV)
    :param record: ``False``: only the inode numbers are simulated
    :ivar log: all operations so far
    """

    def __init__(
        self,
        root: str,
        platter: Platter | None = None,
        keys: dict[tuple[int, int], int] | None = None,
        *,
        faults: FaultPlan | None = None,
        boot: str | None = None,
        mounts: tuple[str, ...] = (),
        record: bool = True,
    ) -> None:
        RecordingDisk.__init__(self, root, platter, keys, mounts=mounts, record=record)
        FailingDisk.__init__(self, faults)
        self.boot = boot

    def note(self, what: Any) -> None:
        """Put a remark into the log."""
        with self._mutex:
            self.log.append(ops.Note(what))

    def boot_id(self) -> str:
        return super().boot_id() if self.boot is None else self.boot

    def made(
        self, call: str, act: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]
    ) -> T:
        with self._mutex:
            if call == "sql" and not (self.dead and kind_of(args[1]) == "close"):
                act = partial(self._watched, act)
            try:
                return super().made(call, act, args, options)
            except OSError as error:
                # An interrupted flush has done nothing yet; any other may have thrown pages away.
                if call in ("flush", "flush_all") and error.errno != errno.EINTR:
                    self._flushed(args[0], failed=True)
                raise

    def _watched(self, act: Callable[..., T], connection: SimulatedConnection, sql: str) -> T:
        return self.ask_sqlite(connection, sql, lambda: act(connection, sql))

    def close(self, fd: int) -> None:
        with self._mutex:
            try:
                if not self.dead:
                    self.asked("close", "", lambda _short: None)
            finally:
                RecordingDisk.close(self, fd)  # as the kernel does, also when it reports an error

    def unlock(self, fd: int, byte: int) -> None:
        if self.dead:
            Disk.unlock(self, fd, byte)
        else:
            super().unlock(fd, byte)

    def crashed(self) -> Tree:
        with self._mutex:
            return super().crashed()
