"""A real disk that fails, or dies, where a fault plan says so; light enough for any test."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from txstore.disk import Disk
from txstore.local.journal import handles
from txstore.testing.failing import FailingDisk
from txstore.testing.faults import FaultPlan
from txstore.testing.sqlite import SimulatedConnection, kind_of

T = TypeVar("T")

_OPENING = (
    "create",
    "create_there",
    "open",
    "open_or_create",
    "open_index",
    "open_folder",
    "lock_folder",
)


class _GoneError(OSError):
    """The descriptor was closed when its process was buried."""


def _is_of_the_living(record: logging.LogRecord) -> bool:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(one, _GoneError) for one in arguments)


# What is left in memory of a dead manager is closed when it is collected, and would complain.
logging.getLogger("txstore.local.journal.journal").addFilter(_is_of_the_living)


class FaultyDisk(FailingDisk):
    """The disk of one process, which can fail and die on command.  Thread-safe.

    Pass it to a manager as ``disk=``; managers that share it are like threads of one process.  When
    a crash has struck, every call of every thread raises ``SimulatedCrash`` and does nothing.
    ``bury`` then lets go of what the process had open, as the kernel does.  After that another
    manager, over the same folders and with another disk, can go on.

    :param faults: what goes wrong; by default nothing yet
    :ivar full: whether no block is left.  Then no file grows and no folder can be made.  Empty
        files can be made, and what is there can be overwritten, renamed and removed.  What SQLite
        writes by itself is not seen here: the journal keeps space of its own for such days
    :ivar dead: whether a crash has struck
    """

    def __init__(self, faults: FaultPlan | None = None) -> None:
        super().__init__(faults)
        self.full = False
        self._buried = False
        self._opened: set[int] = set()
        self._connections: list[SimulatedConnection] = []

    def bury(self) -> None:
        """Close all that was opened through this disk, without a word to the store.

        Calls in other threads must have returned.  Afterwards every call fails as on a closed
        descriptor.
        """
        self.dead = self._buried = True
        with self._mutex:
            opened, self._opened = self._opened, set()
            connections, self._connections = self._connections, []
        for connection in connections:
            # Closed with a statement alive, in some traceback perhaps, it would keep its locks.
            connection.rollback()
            handles.close_unsettled(connection)  # the dead do not checkpoint
        for fd in opened:
            os.close(fd)

    # A close and an unlock cannot fail in a way that matters, and a pause does nothing.

    def close(self, fd: int) -> None:
        """Close a descriptor, also of a dead process: whoever still has it gets rid of it."""
        with self._mutex:
            ours = fd in self._opened
            self._opened.discard(fd)
        if ours:
            os.close(fd)

    def unlock(self, fd: int, byte: int) -> None:
        if not self.dead:
            Disk.unlock(self, fd, byte)

    def pause(self, seconds: float) -> None:
        Disk.pause(self, seconds)

    def lack_of_space(self, folder: str, *room: int) -> int:
        return errno.ENOSPC if self.full else Disk.lack_of_space(self, folder, *room)

    def space(self, fd: int) -> tuple[int, int]:
        free, total = super().space(fd)
        return 0 if self.full else free, total

    def made(
        self, call: str, act: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]
    ) -> T:
        def really(*args: Any, **options: Any) -> Any:
            done: Any = act(*(_within_space(call, args) if self.full else args), **options)
            with self._mutex:
                if call in _OPENING and done is not None:
                    self._opened.add(done)
                elif call == "connect":
                    self._connections.append(done)
            return done

        if call == "sql" and kind_of(args[1]) == "close":
            with self._mutex:
                self._connections = [one for one in self._connections if one is not args[0]]
        done: T = super().made(call, really, args, options)
        return done

    def asked(self, call: str, path: str, act: Callable[[bool], T]) -> T:
        if self._buried:
            raise _GoneError(errno.EBADF, os.strerror(errno.EBADF), path or None)
        return super().asked(call, path, act)


def _within_space(call: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of as much of a call as a full disk can do.

    :raises OSError: it can do nothing of it
    """
    if call == "pwrite":
        fd, data, offset = args
        room = max(0, os.fstat(fd).st_size - offset)
        if room or not data:
            return fd, data[:room], offset
    elif call == "allocate":
        fd, size = args
        if size <= os.fstat(fd).st_size:
            return args
    elif call != "make_folder":
        return args
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
