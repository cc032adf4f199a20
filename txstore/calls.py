"""Counts the calls in flight, so that closing can wait for them."""

from __future__ import annotations

import threading

from txstore.errors import StoreClosedError


class Calls:
    """A gate: ``with calls:`` around each call; ``close`` lets no more in and waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._condition:
            if self._closed:
                raise StoreClosedError
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            if self._closed and not self._inside:
                self._condition.notify_all()

    def close(self) -> bool:
        """Refuse new calls and wait for those inside; ``False`` if it was closed before."""
        with self._condition:
            first, self._closed = not self._closed, True
            self._condition.wait_for(lambda: self._inside == 0)
            return first

    def forget(self) -> None:
        """In a forked child: the threads whose calls are in flight do not live here."""
        self._condition = threading.Condition()
        self._inside = 0
