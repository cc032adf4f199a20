"""A real disk that fails, or dies, where a fault plan says so; light enough for any test."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from txstore.disk import Disk
from txstore.local.journal import handles
from txstore.testing.faults import CHANGING, Fault, FaultPlan, SimulatedCrash, raise_fault
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
_READING = (
    *("pread", "size", "fstat", "stat", "read_link", "list_folder"),
    *("new_file", "acl", "default_acl"),
    *("try_lock", "last_holder", "sign", "start_flush"),
    # Of lock files and of the index, which no promise rests on.
    *("give", "overwrite_in_place", "try_lock_byte"),
    *("touch_file", "touch_memory", "mapped"),
)


class _GoneError(OSError):
    """The descriptor was closed when its process was buried."""


def _is_of_the_living(record: logging.LogRecord) -> bool:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(one, _GoneError) for one in arguments)


# What is left in memory of a dead manager is closed when it is collected, and would complain.
logging.getLogger("txstore.local.journal.journal").addFilter(_is_of_the_living)


class FaultyDisk(Disk):
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
        self.faults = FaultPlan() if faults is None else faults
        self.full = False
        self.dead = False
        self._buried = False
        self._mutex = threading.Lock()
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

    def close(self, fd: int) -> None:
        """Close a descriptor, also of a dead process: whoever still has it gets rid of it."""
        with self._mutex:
            ours = fd in self._opened
            self._opened.discard(fd)
        if ours:
            super().close(fd)

    def unlock(self, fd: int, byte: int) -> None:
        if not self.dead:
            super().unlock(fd, byte)

    def lack_of_space(self, folder: str, *room: int) -> int:
        return errno.ENOSPC if self.full else super().lack_of_space(folder, *room)

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        def act(_short: bool) -> SimulatedConnection:
            connection = sqlite3.connect(path, factory=SimulatedConnection, **options)
            connection.around = self._around
            connection.file = unquote(urlsplit(path).path)
            with self._mutex:
                self._connections.append(connection)
            return connection

        return self._asked("connect", path, act)

    def _around(self, connection: SimulatedConnection, sql: str, act: Callable[[], T]) -> T:
        kind = kind_of(sql)
        if kind == "close":
            with self._mutex:
                if connection in self._connections:
                    self._connections.remove(connection)
            return act()
        call = kind if kind in ("commit", "checkpoint") else "statement"
        return self._asked(call, sql, lambda _short: act())

    def _asked(self, call: str, path: str, act: Callable[[bool], T]) -> T:
        """Carry a call out, unless the plan is against it.

        :param act: carries it out; told whether a write is to be a short one
        """
        if self._buried:
            raise _GoneError(errno.EBADF, os.strerror(errno.EBADF), path or None)
        if self.dead:
            raise SimulatedCrash(f"{call} {path}")
        with self._mutex:
            struck = self.faults.struck(call, path)
        for fault in struck:
            if not fault.after:
                self._strike(fault, call, path)
        done = act(any(fault.short for fault in struck))
        for fault in struck:
            if fault.after:
                self._strike(fault, call, path)
        return done

    def _strike(self, fault: Fault, call: str, path: str) -> None:
        self.dead = self.dead or fault.error is None
        raise_fault(fault, call, path)


def _asking(call: str) -> Callable[..., Any]:
    """The method ``call`` of ``Disk``, with the plan asked first."""
    real = getattr(Disk, call)

    @functools.wraps(real)
    def method(self: FaultyDisk, *args: Any, **options: Any) -> Any:
        def act(short: bool) -> Any:
            possible = _halved(*args) if short else args
            possible = _within_space(call, possible) if self.full else possible
            done = real(self, *possible, **options)
            if call in _OPENING and done is not None:
                with self._mutex:
                    self._opened.add(done)
            return done

        # Paths cost more than most calls: they are made only for whom they matter.
        plan = self.faults
        matter = plan.faults or plan.history is not None or plan.watch is not None
        path = _path(args, options) if matter else ""
        return self._asked(call, path, act)

    return method


# ``close`` and ``unlock`` cannot fail in a way that matters.
for _call in {*_OPENING, *_READING, *CHANGING}:
    setattr(FaultyDisk, _call, _asking(_call))


def _halved(fd: int, data: bytes | memoryview, offset: int) -> tuple[Any, ...]:
    return fd, data[: (len(data) + 1) // 2], offset


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


def _path(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """What a call is about, as absolute paths; a rename is about two."""
    if isinstance(args[0], int):
        return _path_of(args[0])
    folders = [options[name] for name in ("source_dir", "target_dir") if name in options]
    folders = folders or [options.get("dir_fd")] * 2
    names = [name for name in args[:2] if isinstance(name, str)]
    pairs = zip(names, folders, strict=False)
    return " ".join(os.path.join(_path_of(folder), name) for name, folder in pairs)


def _path_of(fd: int | None) -> str:
    if fd is None:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # no /proc here, or the descriptor is closed: then rules have no path to go by
