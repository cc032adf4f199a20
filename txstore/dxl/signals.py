"""Signals, handed to a thread.

A signal's handler runs in the main thread, between two of its steps.  That thread may hold the lock
of the very event that the handler would set.  Then it would wait for itself for ever.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_HANGUP = (signal.SIGHUP,)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask a service to stop cleanly.

    SIGHUP, with which a terminal that is closed takes its programs along, is one of them where
    there is a terminal, unless whoever started the service wants it to stay then (``nohup``).
    """
    stopping = (signal.SIGTERM, signal.SIGINT)
    return stopping + _HANGUP if _has_terminal() and not _is_ignored() else stopping


def reload_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask it to read its configuration again: SIGHUP, where no terminal can be
    closed."""
    return () if _has_terminal() or _is_ignored() else _HANGUP


def _is_ignored() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def relayed(*numbers: signal.Signals, to: Callable[[], None]) -> Iterator[None]:
    """For the time of a ``with``, call ``to`` in a thread of its own whenever a signal comes.

    :param numbers: the signals; their handlers are restored at the end
    :raises ValueError: called in another thread than the main one
    """
    # Its put() may be interrupted by itself, unlike that of other queues.
    came: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def relay() -> None:
        while came.get():
            to()

    threading.Thread(target=relay, name="txstore-signals", daemon=True).start()
    before = {number: signal.signal(number, lambda *_: came.put(True)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        came.put(False)
