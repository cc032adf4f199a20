"""What an engine has open: let go of once, and disowned where it is not ours any more."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack

from txstore.process import forks


class Belongings:
    """What an engine has open, and in which process: let go of once, by whoever is first.

    In another process, or after somebody closed all descriptors, nothing of it may be used, closed
    or unlocked as if it were ours: then it is disowned.
    """

    def __init__(self) -> None:
        self._process = forks.here()
        self._closing = ExitStack()
        self._parts: list[forks.Disownable] = []
        self._checks: list[Callable[[], bool]] = []
        self._over = False
        _all.add(self)

    def keep(self, part: forks.Disownable, close: Callable[[], None]) -> None:
        """Have a part closed at the end, or disowned."""
        self._closing.callback(close)
        self._parts.append(part)

    def check(self, has_descriptors: Callable[[], bool]) -> None:
        """Have ``are_ours`` ask a part."""
        self._checks.append(has_descriptors)

    def are_ours(self) -> bool:
        """Whether they can be used, as far as can be told at little cost."""
        if self._over or not forks.is_here(self._process):
            return False
        for has_descriptors in self._checks:  # noqa: SIM110 - asked at every call
            if not has_descriptors():
                return False
        return True

    def let_go(self) -> None:
        """Close everything."""
        if self.are_ours():
            self._over = True
            self._closing.close()
        else:
            self.disown()

    def disown(self) -> None:
        """Let go of everything without disturbing whose it is now."""
        self._over = True
        if forks.is_here(self._process):  # in a forked child that is done for all at once
            while self._parts:
                self._parts.pop().disown()


#: Of all engines of this process.
_all: weakref.WeakSet[Belongings] = weakref.WeakSet()


def disown_lost() -> None:
    """Before descriptors are opened: disown all that were closed, since what is opened now gets
    their numbers."""
    for one in list(_all):
        if not one.are_ours():
            one.disown()
