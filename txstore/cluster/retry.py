"""Calls that failed for a passing reason are made again, within the time that their call has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.process import strikes

T = TypeVar("T")

#: Seconds of the first pause at most; each next one may be twice as long, up to the second number.
_FIRST, _LONGEST = 0.02, 1.0


class TransientError(Exception):
    """Something failed that may succeed soon, and whether it took place is not known.

    :ivar told: what to tell the caller if it does not
    """

    def __init__(self, told: OSError) -> None:
        super().__init__(str(told))
        self.told = told


class ChangedError(Exception):
    """Another worker was first: what was read has to be read again."""


def pass_on(error: Exception) -> None:
    """Before an error is ignored: raise it if a signal handler did, in the middle of a step."""
    if isinstance(error, OSError):
        strikes.pass_on(error)


def retrying(work: Callable[[], T], deadline: Deadline, servers: Servers) -> T:
    """Do some work, again and again as long as what fails is passing.

    Whatever it does has to be such that it finds out first what an earlier attempt did.
    """
    longest = _FIRST
    while True:
        try:
            return work()
        except TransientError as error:
            # A random one: those who failed together must not come again together.
            pause = random.uniform(longest / 2, longest)
            if deadline.left() <= pause:
                raise error.told from error.told.__cause__
            servers.pause(pause)
            longest = min(2 * longest, _LONGEST)
