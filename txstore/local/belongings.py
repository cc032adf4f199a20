"""What an engine has open: let go of once, and disowned where it is not ours any more."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from txstore.local.files.descriptors import Descriptor
from txstore.process import forks


class Witness(Protocol):
    """A part of which one descriptor is looked at.

    :ivar witness: it, and the file that it leads to, if it is still its own
    """

    witness: Descriptor

    def has_descriptors(self) -> bool:
        """Whether they are its own still, also where that one is not."""
        ...


class Belongings:
    """What an engine has open, and in which process: let go of once, by whoever is first.

    In another process, or after somebody closed all descriptors, nothing of it may be used, closed
    or unlocked as if it were ours: then it is disowned.

    :ivar process: whose they are
    :ivar witnesses: parts that tell whether descriptors are still their own
    :ivar over: whether they were let go of
    """

    def __init__(self) -> None:
        self.process = forks.here()
        self.witnesses: list[Witness] = []
        self._closing = ExitStack()
        self._parts: list[forks.Disownable] = []
        self.over = False
        _all.add(self)

    def keep(self, part: forks.Disownable, close: Callable[[], None]) -> None:
        """Have a part closed at the end, or disowned."""
        self._closing.callback(close)
        self._parts.append(part)

    def are_ours(self) -> bool:
        """Whether they can be used, as far as can be told at little cost."""
        if self.over or not forks.is_here(self.process):
            return False
        return all(one.has_descriptors() for one in self.witnesses)

    def let_go(self) -> None:
        """Close everything."""
        if self.are_ours():
            self.over = True
            self._closing.close()
        else:
            self.disown()

    def disown(self) -> None:
        """Let go of everything without disturbing whose it is now."""
        self.over = True
        if forks.is_here(self.process):  # in a forked child that is done for all at once
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
