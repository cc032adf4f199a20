"""What has to happen around ``fork``.

SQLite's locks belong to a process and do not survive a fork, while its tables in memory do: a
child that goes on with its parent's connection, or merely lets it be collected, can delete the
write-ahead log under everybody.  So no connection exists at the moment of a fork.  Thread locks
are copied in whatever state they were in, so the child gets new ones.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from typing import Protocol


class Forgetful(Protocol):
    """What a child begins anew: no other thread lives there, and what it inherited is not its."""

    def forget(self) -> None: ...


class Connected(Forgetful, Protocol):
    """What has to let go before a fork, and keeps others from taking it up again until after."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...


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

_connected: weakref.WeakSet[Connected] = weakref.WeakSet()
_forgetful: weakref.WeakSet[Forgetful] = weakref.WeakSet()
_stopped: list[Connected] = []


def let_go(one: Connected) -> None:
    """Have ``one`` told before and after every fork, for as long as it lives."""
    with opening:
        _connected.add(one)


def forget(*several: Forgetful) -> None:
    """Have each told in every forked child, for as long as it lives."""
    with opening:
        for one in several:
            _forgetful.add(one)


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
    opening.lock = threading.RLock()
    _stopped.clear()
    for one in [*_connected, *_forgetful]:
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
