"""Counts the calls in flight, so that closing can wait for them."""

from __future__ import annotations

import threading
from collections import Counter

from txstore.errors import StoreClosedError


class Calls:
    """A gate: ``with calls:`` around each call; ``close`` lets no more in and waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: Counter[int] = Counter()  # by thread
        self._closed = False

    def __enter__(self) -> None:
        with self._condition:
            if self._closed:
                raise StoreClosedError
            self._inside[threading.get_ident()] += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            me = threading.get_ident()
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            if self._closed:
                self._condition.notify_all()

    def close(self) -> bool:
        """Refuse new calls and wait for those inside; ``False`` if it was closed before."""
        with self._condition:
            first, self._closed = not self._closed, True
            # Who closes is in no call, even if a Ctrl-C at a bad moment left one open.
            del self._inside[threading.get_ident()]
            self._condition.wait_for(lambda: not self._inside)
            return first

    def forget(self) -> None:
        """In a forked child: the threads whose calls are in flight do not live here."""
        self._condition = threading.Condition()
        self._inside = Counter()
