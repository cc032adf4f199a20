"""What an engine has open: its connections, let go of once, and left alone where they are not its
own any more."""

from __future__ import annotations

import os

from txstore.cluster.journal import Journal
from txstore.cluster.objects import Objects
from txstore.process import forks

#: What may not even be collected: to close a connection is to write to its descriptor.
_left_alone: list[object] = []


class Belongings:
    """The connections of one engine, and in which process they are.

    In another process, or after somebody closed all descriptors, as a daemon does, nothing of them
    may be used or closed: their numbers may be other files' by now.
    """

    def __init__(self, journal: Journal, objects: Objects) -> None:
        self._journal, self._objects = journal, objects
        self._process = forks.here()
        self._over = False
        # One that nobody uses: as long as it is there, so are the others.
        self._sign, other = os.pipe()
        os.close(other)
        self._inode = os.fstat(self._sign).st_ino

    def are_ours(self) -> bool:
        """Whether they can be used, as far as can be told at little cost."""
        return not self._over and forks.is_here(self._process) and self._is_open()

    def _is_open(self) -> bool:
        try:
            return os.fstat(self._sign).st_ino == self._inode
        except OSError:
            return False

    def let_go(self) -> None:
        """Close everything that is ours.  May be called more than once."""
        if self._over:
            return
        ours, self._over = self.are_ours(), True
        if not ours:
            if forks.is_here(self._process):
                _left_alone.append((self._journal, self._objects))
            return
        os.close(self._sign)
        self._journal.close()
        self._objects.close()
