"""Subjects timed in turn, and what is made of their times.

All subjects of a case run in short batches, one after the other, round after round, and so does the
**unit**: a 4 KiB overwrite and its flush.  A machine that is slow for a while is slow for all of
them, so the ratios between them hold where the times themselves do not.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

UNIT = "flush"
TXSTORE, UPSTREAM, FLOOR = "txstore", "upstream", "floor"


class Subject(Protocol):
    """Something that is timed."""

    def run(self) -> list[float]:
        """One batch: the seconds that each operation took."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class Ratio:
    """A ratio that is wanted of a case.

    :ivar of: the subject
    :ivar to: what it is compared with
    :ivar limit: the target for the mean; ``None``: there is none, the figure just says something
    :ivar median_limit: the target for the paired median
    :ivar rates: whether operations a second are compared: then more is better
    """

    of: str
    to: str
    limit: float | None = None
    median_limit: float | None = None
    rates: bool = False


@dataclass(frozen=True)
class Bound:
    """A target for one subject's own figure.

    :ivar figure: an attribute of ``Times``
    :ivar limit: the most that it may be
    """

    of: str
    figure: str
    limit: float


#: Makes a case's subjects below a folder; what must be closed with them goes on the stack.
Prepare = Callable[[Path, ExitStack], dict[str, Subject]]


@dataclass(frozen=True)
class Case:
    """What is measured.

    :ivar name: short, for ``--only``
    :ivar title: for people
    :ivar per: what one operation is
    :ivar rounds: how many batches of each subject
    :ivar unit: whether the unit is measured too
    :ivar flushes: whether a subject flushes: then each batch begins with a clean disk, or it would
        flush what another left in memory
    :ivar scale: from a subject's figure to what is shown, with its name
    """

    name: str
    title: str
    per: str
    prepare: Prepare
    rounds: int
    ratios: tuple[Ratio, ...] = ()
    bounds: tuple[Bound, ...] = ()
    unit: bool = True
    flushes: bool = False
    scale: tuple[float, str] = (1e6, "us")


@dataclass(frozen=True)
class Times:
    """What one subject took, in seconds.

    :ivar spread: standard deviation of the rounds' means, as a part of their mean
    """

    count: int
    mean: float
    median: float
    p99: float
    p999: float
    longest: float
    spread: float

    @classmethod
    def of(cls, batches: list[list[float]]) -> Times:
        times = sorted(time for batch in batches for time in batch)
        means = [statistics.fmean(batch) for batch in batches]
        mean = statistics.fmean(times)
        return cls(
            count=len(times),
            mean=mean,
            median=statistics.median(times),
            p99=percentile(times, 0.99),
            p999=percentile(times, 0.999),
            longest=times[-1],
            spread=statistics.pstdev(means) / statistics.fmean(means) if mean else 0.0,
        )


@dataclass(frozen=True)
class Measured:
    """A ratio as it came out.

    :ivar mean: of all times
    :ivar median: of the ratios of each round's medians
    :ivar low: a tenth of the rounds have less
    :ivar high: a tenth of the rounds have more
    """

    ratio: Ratio
    mean: float
    median: float
    low: float
    high: float

    @property
    def reached(self) -> bool | None:
        """Whether the targets are met; ``None`` where there is none."""
        if self.ratio.limit is None:
            return None
        if self.ratio.rates:
            return self.mean >= self.ratio.limit
        most = self.ratio.median_limit
        return self.mean <= self.ratio.limit and (most is None or self.median <= most)


@dataclass
class Result:
    """A case's figures."""

    case: Case
    times: dict[str, Times] = field(default_factory=dict)
    ratios: list[Measured] = field(default_factory=list)

    def reached(self, bound: Bound) -> bool:
        return float(getattr(self.times[bound.of], bound.figure)) <= bound.limit


def percentile(ordered: list[float], part: float) -> float:
    """The value that this part of an ordered list does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


def measure(case: Case, folder: Path, unit: Subject | None) -> Result:
    """Run a case's subjects in turn."""
    folder.mkdir()
    with ExitStack() as stack:
        subjects = case.prepare(folder, stack)
        for subject in subjects.values():
            stack.callback(subject.close)
        if unit is not None and case.unit:
            subjects[UNIT] = unit
        batches: dict[str, list[list[float]]] = {name: [] for name in subjects}
        warm_up = case.rounds > 1
        # What the cases before have left is not to be walked by Python's collector on whose bill
        # it happens to be: that took 20 ms.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        for turn in range(case.rounds + warm_up):
            for name in _rotated(subjects, turn):
                if case.flushes or name == UNIT:
                    os.sync()
                batch = subjects[name].run()
                if turn or not warm_up:
                    batches[name].append(batch)
    times = {name: Times.of(found) for name, found in batches.items()}
    ratios = [_ratio(ratio, batches) for ratio in case.ratios]
    return Result(case, times, ratios)


def _rotated(names: Iterable[str], by: int) -> list[str]:
    """Each goes first as often as the others."""
    every = list(names)
    by %= len(every)
    return every[by:] + every[:by]


def _ratio(ratio: Ratio, batches: dict[str, list[list[float]]]) -> Measured:
    of, to = batches[ratio.of], batches[ratio.to]
    if ratio.rates:
        of, to = to, of
    pairs = sorted(
        statistics.median(one) / statistics.median(other) for one, other in zip(of, to, strict=True)
    )
    mean = statistics.fmean(t for batch in of for t in batch) / statistics.fmean(
        t for batch in to for t in batch
    )
    return Measured(
        ratio,
        mean=mean,
        median=statistics.median(pairs),
        low=percentile(pairs, 0.1),
        high=percentile(pairs, 0.9),
    )
