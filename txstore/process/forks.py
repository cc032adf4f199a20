"""What has to happen around ``fork``, and how a process is told from the one it was forked from.

SQLite's locks belong to a process and do not survive a fork, but its tables in memory do.  A child
that goes on with its parent's connection, or merely lets it be collected, can delete the
write-ahead log under everybody.  So Python's own forks leave no connection open.  A fork that is
made from C (uWSGI's, or any library's) tells nobody.  Its child is known by its process id, which
every call compares (``here``).  It lets go of what it inherited then.

Thread locks are copied in whatever state they were in, so nothing of an inherited manager is used
in a child: the manager opens anew.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from typing import Protocol


class Disownable(Protocol):
    """What a child lets go of without disturbing its parent: nothing of it is used again."""

    def disown(self) -> None: ...


class Connected(Disownable, Protocol):
    """What has to let go before a fork, and keeps others from taking it up again until after."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...


class Process:
    """Identity of a process: its number alone would be used again.

    :ivar pid: its number; in a child, which inherited this, no process's
    """

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.pid = os.getpid()


class Known:
    """The process that all of this module's state belongs to.

    Every call compares ``Known.process.pid`` with its own, and calls ``here`` where they differ.
    """

    process = Process()


class _Gate:
    """A lock that a child can make anew."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


#: Held while there is a connection to a journal that is not registered: nobody could close it.  Not
#: while a lock is waited for, since forks, and stores that are opened elsewhere, wait meanwhile.
opening = _Gate()

#: Held while a connection that may write opens the journal's index, and for as long as one that may
#: not has it: SQLite opens it once for all of a process, and whoever is first says how.  Taken
#: after ``opening``, and after a journal's mutex.
indexing = _Gate()

_connected: weakref.WeakSet[Connected] = weakref.WeakSet()
_disownable: weakref.WeakSet[Disownable] = weakref.WeakSet()
_stopped: list[Connected] = []

_recognising: dict[int, threading.Lock] = {}


def here() -> Process:
    """This process.  In a child of which nobody was told, what it inherited is let go of first."""
    pid = os.getpid()
    if pid != Known.process.pid:
        # One thread does it.  The lock is made in this process: an inherited one may be held by a
        # thread that does not live here.
        with _recognising.setdefault(pid, threading.Lock()):
            if pid != Known.process.pid:
                _in_child()
    return Known.process


def is_here(process: Process) -> bool:
    """Whether this is still that process.  Does nothing else, so that a finalizer may ask."""
    return process.pid == os.getpid()


def let_go(one: Connected) -> None:
    """Have ``one`` told before and after every fork, for as long as it lives."""
    with opening:
        _connected.add(one)


def disown_in_children(*several: Disownable) -> None:
    """Have each told in every forked child, for as long as it lives."""
    with opening:
        for one in several:
            _disownable.add(one)


def _before() -> None:
    opening.lock.acquire()
    # Each in its turn, whatever the others raise (a Ctrl-C): the fork takes place all the same.
    with ExitStack() as stopping:
        for one in list(_connected):
            stopping.callback(_stop, one)


def _stop(one: Connected) -> None:
    one.before_fork()
    _stopped.append(one)


def _in_parent() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_parent()
    opening.lock.release()


def _in_child() -> None:
    """May be cut off, and is begun again then."""
    opening.lock, indexing.lock = threading.RLock(), threading.RLock()
    _stopped.clear()
    # All of them, before anything is opened anew: SQLite keeps one table of locks for a file.
    for one in [*_connected, *_disownable]:
        one.disown()
    _connected.clear()  # the locks of what is never used again are nobody's to wait for
    # Whoever belongs to it is not of this process, even if that has the same number one day.
    Known.process.pid = 0
    Known.process = Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
