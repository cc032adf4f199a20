"""Time as the store needs it: a clock that no one can set, and the wall clock across boots."""

from __future__ import annotations

import time
from dataclasses import dataclass

#: After a reboot nothing expires before the new boot has known it for this long (seconds):
#: the wall clock may come up wrong and be corrected minutes later.
GRACE_AFTER_BOOT = 3600.0

# CLOCK_BOOTTIME goes on while the machine sleeps; elsewhere the monotonic clock has to do.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class Moment:
    """A point in time.

    :ivar wall: seconds since the epoch, as the wall clock had it
    :ivar boot: identity of the boot in which it was taken
    :ivar ticks: seconds since that boot
    """

    wall: float
    boot: str
    ticks: float


def now(boot: str) -> Moment:
    """The present, in the boot that the caller found itself in."""
    return Moment(time.time(), boot, time.clock_gettime(_BOOT_CLOCK))


def age(then: Moment, at: Moment, boot_seen_ticks: float) -> float:
    """Seconds from ``then`` to ``at`` that may be counted for expiry.

    Within one boot the boot-time clock alone decides, so that no jump of the wall clock expires
    anything.  Across boots the wall clock decides, but nothing counts as aged before this boot has
    known the store for an hour.

    :param boot_seen_ticks: ``ticks`` at which this boot first saw the store
    """
    if then.boot == at.boot:
        return at.ticks - then.ticks
    if at.ticks - boot_seen_ticks < GRACE_AFTER_BOOT:
        return 0.0
    return at.wall - then.wall
