"""Which threads are in a call, and of what, so that closing can wait for them."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from txstore.process import forks, threads

T = TypeVar("T")


class Calls(Generic[T]):
    """Notes who is in a call, and what each call uses.

    Entering and leaving are single operations on a dictionary, so that an exception which strikes
    at any moment leaves nothing half done: ``leave`` is simply called again.

    :ivar inside: what each thread's call uses, by the thread's number: entered before anything of
        it is used, and left by ``leave``
    :ivar waited_for: whether somebody waits until nobody is inside, and is to be told by ``leave``
    :ivar to_close: threads in the middle of whose call ``close`` was called: they do it at its end
    :ivar opening: held while what the calls use is opened anew
    """

    def __init__(self) -> None:
        self.disown()
        forks.disown_in_children(self)

    def leave(self, outer: T | None) -> None:
        """It is in the outer call again, or in none.  May be called again."""
        me = threading.get_ident()
        if outer is not None:
            self.inside[me] = outer
            return
        self.inside.pop(me, None)
        if self.waited_for:
            with self._condition:
                self._condition.notify_all()

    def are_using(self, used: T) -> bool:
        """Whether any thread is in a call that uses it."""
        return any(one is used for one in list(self.inside.values()))

    def wait(self) -> None:
        """Wait until no other thread is in a call.  Who comes in later has to be kept out before:
        it is to look, after it entered, whether it still may."""
        me = threading.get_ident()
        self.waited_for = True
        with self._condition:
            self._condition.wait_for(lambda: all(one == me for one in list(self.inside)))

    def let_go(self) -> None:
        """After a call of this thread failed: let go of the locks here that the thread has."""
        threads.let_go(self._lock)
        threads.let_go(self.opening)

    def disown(self) -> None:
        """In a forked child: the threads whose calls are in flight do not live here."""
        self.inside: dict[int, T] = {}
        self._lock = threads.new_lock()
        self._condition = threading.Condition(self._lock)
        self.waited_for = False
        self.to_close: set[int] = set()
        self.opening = threads.new_lock()
