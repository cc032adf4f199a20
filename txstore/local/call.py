"""The facts of one call, which every part that has a hand in it is told."""

from __future__ import annotations

from txstore.deadline import Deadline
from txstore.local.clock import Moment


class Call(Deadline):
    """One call: how long it may wait, when it is, and what it holds.

    :param deadline: bounds its waiting
    :ivar at: the moment that is recorded for all that it does.  Taken after the transfer's lock
        was had: waiting for one may take long
    :ivar turn: of the transfer's lock, while it is held (see ``TransferLock``)
    """

    __slots__ = ("at", "turn")

    def __init__(self, deadline: Deadline, at: Moment, turn: int = 0) -> None:
        self.timeout, self._end = deadline.timeout, deadline._end
        self.at, self.turn = at, turn
