"""Time as the store needs it: a clock that no one can set, the wall clock across boots, and the
facts of one call."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from txstore.deadline import Deadline

#: After a reboot nothing expires before the new boot has known it for this long (seconds):
#: the wall clock may come up wrong and be corrected minutes later.
GRACE_AFTER_BOOT = 3600.0

# CLOCK_BOOTTIME goes on while the machine sleeps; elsewhere the monotonic clock has to do.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Moment(NamedTuple):
    """A point in time.

    :ivar wall: seconds since the epoch, as the wall clock had it
    :ivar boot: identity of the boot in which it was taken
    :ivar ticks: seconds since that boot, by the machine's own clock, whatever time namespace the
        process is in
    """

    wall: float
    boot: str
    ticks: float


class Clock(NamedTuple):
    """Tells the present as all workers of a boot would have it.

    :ivar boot: identity of this boot
    :ivar ahead: seconds by which this process's clock is ahead of the machine's own (see
        ``Machine.clock_ahead``)
    """

    boot: str
    ahead: float

    def now(self) -> Moment:
        """The present."""
        return Moment(time.time(), self.boot, time.clock_gettime(_BOOT_CLOCK) - self.ahead)


class Call(Deadline):
    """One call: how long it may wait, when it is, and what it holds.

    :param timeout: seconds that it may wait
    :ivar at: the moment that is recorded for all that it does, from ``begin`` on
    :ivar turn: of the transfer's lock, while it is held (see ``TransferLock``)
    """

    __slots__ = ("_clock", "at", "turn")

    def __init__(self, timeout: float, clock: Clock) -> None:
        self.timeout, self.end = timeout, time.monotonic() + timeout
        self._clock = clock

    @classmethod
    def within(cls, deadline: Deadline, clock: Clock) -> Call:
        """One that begins now, and may wait as long as another."""
        call = cls(deadline.timeout, clock)
        call.end = deadline.end
        return call.begin()

    def begin(self, turn: int = 0) -> Call:
        """Take the moment: after the transfer's lock was had, since waiting for one may take
        long."""
        self.at, self.turn = self._clock.now(), turn
        return self


class Cutoff(NamedTuple):
    """Which moments are a lifetime ago or more, in terms that SQL can compare, too.

    Within one boot the boot-time clock alone decides, so that no jump of the wall clock expires
    anything.  Across boots the wall clock decides, but nothing counts as aged before this boot has
    known the store for an hour.

    :ivar boot: this one
    :ivar ticks: what is of this boot is over if it is not later than this
    :ivar wall: likewise what is of another boot
    """

    boot: str
    ticks: float
    wall: float

    def is_over(self, then: Moment) -> bool:
        if then.boot == self.boot:
            return then.ticks <= self.ticks
        return then.wall <= self.wall


def cutoff(lifetime: float, at: Moment, boot_seen_ticks: float) -> Cutoff:
    """What is over at a moment.

    :param boot_seen_ticks: ``ticks`` at which this boot first saw the store
    """
    known = at.ticks - boot_seen_ticks >= GRACE_AFTER_BOOT
    return Cutoff(at.boot, at.ticks - lifetime, at.wall - lifetime if known else -math.inf)
