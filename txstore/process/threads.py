"""Locks among threads that know which thread has them.

An exception that a signal handler raises strikes between any two steps, also between those of
taking a lock and of noting that it was taken.  These are taken and signed in one step, so that
whoever was cut off can let go of what is its own.
"""

from __future__ import annotations

import threading
from typing import Any


def new_lock() -> Any:
    """A lock among threads.  ``with`` it, or ``acquire`` it once."""
    return threading.RLock()


def is_mine(lock: Any) -> bool:
    """Whether this thread has it."""
    return bool(lock._is_owned())


def try_acquire(lock: Any) -> bool:
    """Take a lock that nobody has, or answer ``False`` at once."""
    return not lock._is_owned() and lock.acquire(blocking=False)


def acquire(lock: Any, timeout: float) -> bool:
    """Take a lock; ``False``: it was not had in time, or this thread has it already.

    A call that a signal handler makes in the middle of another must not go on in what that one
    guards.
    """
    return not lock._is_owned() and lock.acquire(timeout=timeout)


def let_go(lock: Any) -> bool:
    """Release a lock if this thread has it; whether it had.  May be cut off, and called again."""
    mine = is_mine(lock)
    while is_mine(lock):
        lock.release()
    return mine
