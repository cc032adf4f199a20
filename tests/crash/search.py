"""The systematic search: every point of a workload at which it can crash, and what may be left.

A workload is recorded once.  Its record is then played back on a ``Platter``, and after every
operation the states that a process crash or a power loss can leave there are built as real
folders, each recovered by a new manager, and held to the promises by the oracle.
"""

from __future__ import annotations

import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from crash.catalogue import check_catalogue
from crash.feed import check_feed, check_feed_at_end
from crash.limiting import check_limits
from crash.oracle import (
    Expected,
    broken,
    check_findings,
    check_opened,
    check_raw,
    check_recovery,
    expected,
)
from crash.steps import Crash, DoneWith, Event, History, Open, Session, Told, Upload
from crash.workloads import Workload
from crash.world import Clock, Folders, fixed
from txstore.errors import TxStoreError
from txstore.options import Level
from txstore.testing import operations as ops
from txstore.testing.disk import SimulatedDisk
from txstore.testing.losses import losses
from txstore.testing.powerloss import Platter, Tree

LEVELS: tuple[Level, ...] = ("segment", "file", "none")

#: What a complete search must have seen at least: states, the share of them that a kill cannot
#: leave, and states of each class.
LEAST, LEAST_BY_POWER, LEAST_OF_CLASS = 100_000, 0.3, 1_000
CLASSES = (
    *("torn", "zero-filled", "name lost", "both names", "journal behind", "journal ahead"),
    "crashed again",
)

_START_WALL, _START_TICKS = 1.8e9, 10_000.0


class Run(NamedTuple):
    """A workload at a level."""

    workload: Workload
    level: Level

    @property
    def name(self) -> str:
        return f"{self.workload.name}/{self.level}"


#: Share of the recovered states in which ``check`` has to find nothing, and before them no damage.
LOOKED_AT = 0.2


class State(NamedTuple):
    """A state to recover from.

    :ivar label: names it within its run
    :ivar crashes: how many crashes led to it
    """

    label: str
    tree: Tree
    history: History
    power: bool
    platter: Platter | None
    crashes: int = 1


@dataclass
class Tally:
    """What a search has seen.

    :ivar failures: label of a state -> what was broken there
    """

    states: set[bytes] = field(default_factory=set)
    by_power: set[bytes] = field(default_factory=set)
    by_kill: set[bytes] = field(default_factory=set)
    classes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def merge(self, other: Tally) -> None:
        self.states |= other.states
        self.by_power |= other.by_power
        self.by_kill |= other.by_kill
        self.classes += other.classes
        self.failures |= other.failures

    @property
    def only_by_power(self) -> int:
        """How many states cannot come from a kill alone."""
        return len(self.by_power - self.by_kill)

    def counts(self) -> dict[str, int]:
        """What was seen, by name."""
        return {
            "distinct states": len(self.states),
            "distinct states, not from a kill alone": self.only_by_power,
            **{f"states: {name}": count for name, count in self.classes.items()},
        }

    def report(self) -> str:
        share = 100 * self.only_by_power // max(1, len(self.states))
        lines = [f"{count:9d} {name}" for name, count in sorted(self.counts().items())]
        return "\n".join([*lines, f"{share:8d}% not from a kill alone"])

    def missing(self) -> list[str]:
        """What of a search that is to be complete is not large enough."""
        wanted = [
            (len(self.states), LEAST, "distinct states"),
            (self.only_by_power, LEAST_BY_POWER * len(self.states), "not from a kill alone"),
            *((self.classes[name], LEAST_OF_CLASS, f"states: {name}") for name in CLASSES),
        ]
        return [
            f"{found} {name}, expected {least:.0f}"
            for found, least, name in wanted
            if found < least
        ]


def boot_of(history: History) -> str:
    return f"boot-{sum(isinstance(one, Crash) and one.power for one in history)}"


def clock_of(history: History) -> Clock:
    """The clock of whoever goes on after a history."""
    walls = [one.at for one in history if isinstance(one, Event)]
    wall = (walls[-1] if walls else _START_WALL) + 1.0
    if any(isinstance(one, Crash) and one.power for one in history):
        return Clock(wall, 60.0)
    return Clock(wall, _START_TICKS + wall - _START_WALL)


def record(run: Run, folders: Folders) -> list[ops.Operation]:
    """Everything that a workload does to the disk."""
    clock = Clock(_START_WALL, _START_TICKS)
    with folders.one() as root, fixed(run.name, clock):
        disk = SimulatedDisk(root, boot="boot-0", mounts=run.workload.mounts)
        session = Session(
            root, disk, clock, run.level, (), run.workload.working, run.workload.options
        )
        try:
            for step in run.workload.steps:
                session.do(step)
        finally:
            session.close()
        return disk.log


def states(
    log: list[ops.Operation],
    base: Platter,
    history: History,
    label: str,
    *,
    randoms: int,
    crashes: int = 1,
    only: set[int] | None = None,
) -> Iterator[State]:
    """The states that a crash may leave, after (and in the middle of) each operation of a log.

    :param base: what was there before; it is changed
    :param only: positions to look at; ``None``: all
    """
    for position, op in enumerate([ops.Note(None), *log]):
        here = f"{label}@{position}"
        wanted = only is None or position in only
        if wanted and isinstance(op, ops.Write) and len(op.data) > 1:
            # A process that is killed in the middle of a write.
            half = base.copy()
            cut = random.Random(here).randrange(1, len(op.data))
            half.apply(op._replace(data=op.data[:cut]))
            tree = half.kernel()
            yield State(f"{here}:half", tree, (*history, Crash(False)), False, half, crashes)
        base.apply(op)
        if isinstance(op, ops.Note) and isinstance(op.what, Event | Told | DoneWith):
            history = (*history, op.what)
        if not wanted:
            continue
        kernel = base.kernel()
        yield State(f"{here}:kill", kernel, (*history, Crash(False)), False, base, crashes)
        for number, loss in enumerate(losses(base, here, randoms)):
            tree = base.left(loss)
            yield State(f"{here}:{number}", tree, (*history, Crash(True)), True, None, crashes)


class Search:
    """Looks at the states of one run."""

    def __init__(self, run: Run, folders: Folders, *, randoms: int = 6) -> None:
        self.run, self.folders, self.randoms = run, folders, randoms
        self.tally = Tally()
        self._seen: set[bytes] = set()

    def level_after(self, state: State) -> Level:
        """Level of whoever recovers: the run's own, or with mixed levels any."""
        if not self.run.workload.mixed:
            return self.run.level
        return random.Random(state.label).choice(LEVELS)

    def look(self, state: State) -> bool:
        """Check a state, unless one like it was checked before.

        :return: whether it is new
        """
        digest = state.tree.digest()
        known = b"%s %d %d" % (digest, len(state.history), state.power)
        if known in self._seen:
            return False
        self._seen.add(known)
        identity = f"{self.run.name} {len(state.history)} ".encode() + digest
        self.tally.states.add(identity)
        (self.tally.by_power if state.power else self.tally.by_kill).add(
            self.run.name.encode() + digest
        )
        for one in state.tree.classes or {"power, all kept" if state.power else "kill"}:
            self.tally.classes[one] += 1
        if state.crashes > 1:
            self.tally.classes["crashed again"] += 1
        try:
            self.check(state)
        except Exception:  # noqa: BLE001 - whatever it is, it is told with its state
            self.tally.failures[state.label] = traceback.format_exc(limit=-6)
        return True

    def check(self, state: State) -> None:
        """:raises Exception: a promise is broken"""
        expect = self.expected(state)
        check_raw(state.tree, expect)
        try:
            self.recover(state, expect, None)
        except (TxStoreError, OSError) as error:
            raise broken(1, f"what is left cannot be gone on with: {error}") from error

    def expected(self, state: State) -> Expected:
        kill, power = expected(state.history[:-1])
        return power if state.power else kill

    def recover(
        self, state: State, expect: Expected, platter: Platter | None
    ) -> list[ops.Operation]:
        """Build a state, recover it and go on to the end.

        :param platter: where to record it; ``None``: nowhere
        """
        clock = clock_of(state.history)
        with self.folders.one() as root, fixed(state.label, clock):
            disk = SimulatedDisk(
                root,
                platter or Platter.of(state.tree),
                state.tree.build(root),
                boot=boot_of(state.history),
                mounts=self.run.workload.mounts,
                record=platter is not None,
            )
            level = self.level_after(state)
            session = Session(
                root,
                disk,
                clock,
                level,
                state.history,
                self.run.workload.working,
                self.run.workload.options,
            )
            try:
                session.short = platter is None and random.Random(state.label).random() < 0.5
                looked = random.Random(f"look {state.label}").random() < LOOKED_AT
                found = check_findings(session, expect, recovered=False) if looked else []
                session.do(Open())
                check_opened(session, state.tree, expect)
                told = self.run.workload.tells_of(level)
                # What it fills the store with is no upload that a next recovery could finish.
                if (limits := self.run.workload.limits) and platter is None:
                    check_limits(session, limits)
                if self.run.workload.forgets:
                    check_catalogue(session, expect, self.run.workload.uploads)
                if told:
                    check_feed(session, state.history, self.run.workload.uploads)
                for one in found:
                    if one.mend:
                        session.manager().repair(one)
                check_recovery(session, expect, self._in_order(session))
                if told:
                    check_feed_at_end(session, self.run.workload.uploads)
                if looked:
                    check_findings(session, expect, recovered=True)
            finally:
                session.close()
            return disk.log

    def _in_order(self, session: Session) -> list[Upload]:
        """What is to be taken to its end: where limits are, first what is begun already."""
        uploads = self.run.workload.uploads
        if self.run.workload.limits is None:
            return uploads
        begun = {one.file_id for one in session.manager().transfers()}
        return sorted(uploads, key=lambda one: one.file_id not in begun)

    # --- what to look at ---------------------------------------------------------------------

    def everything(self, share: float, again: float) -> Tally:
        """Search.

        :param share: of the states, from 0 to 1
        :param again: of those looked at, for which recovery crashes again at every operation
        """
        log = record(self.run, self.folders)
        picker = random.Random(self.run.name)
        for state in states(log, Platter(), (), self.run.name, randoms=self.randoms):
            if picker.random() >= share or not self.look(state):
                continue
            if picker.random() < again and state.label not in self.tally.failures:
                self.crash_again(state, picker)
        return self.tally

    def hunt(self, seconds: float, opening: bool, again: bool) -> str | None:
        """The first failure that is found: what was broken.

        :param opening: look also at the time before the first message
        :param again: crash the process, and then something else
        """
        end = time.monotonic() + seconds
        log = record(self.run, self.folders)
        first = next(index for index, op in enumerate(log) if isinstance(op, ops.Note) and op.what)
        positions = set(range(0 if opening else first, len(log) + 1))
        for share in (0.1, 0.3, 1.0):
            picker = random.Random(f"{self.run.name} {share}")
            for state in states(
                log, Platter(), (), self.run.name, randoms=self.randoms, only=positions
            ):
                if picker.random() < share and self.look(state) and again and not state.power:
                    self.crash_again(state, picker)
                if self.tally.failures:
                    return next(iter(self.tally.failures.values()))
                if time.monotonic() > end:
                    return None
        return None

    def crash_again(self, state: State, picker: random.Random) -> None:
        """Crash at some operations of a recovery: the process again, or now the power."""
        # After a process crash what was not flushed before is still not flushed.
        base = state.platter.copy() if state.platter else Platter.of(state.tree)
        platter = base.copy()
        log = self.recover(state, self.expected(state), platter)
        some = set(picker.sample(range(len(log) + 1), min(12, len(log))))
        for after in states(
            log, base, state.history, f"{state.label}+", randoms=1, crashes=2, only=some
        ):
            self.look(after)

    def replay(self, label: str) -> None:
        """Check the one state of a label again.

        :raises Exception: what it raised
        """
        log = record(self.run, self.folders)
        first, plus, _ = label.partition("+")
        for state in states(log, Platter(), (), self.run.name, randoms=self.randoms):
            if state.label != first:
                continue
            if not plus:
                self.check(state)
                return
            base = state.platter.copy() if state.platter else Platter.of(state.tree)
            again = self.recover(state, self.expected(state), base.copy())
            for after in states(again, base, state.history, f"{first}+", randoms=1, crashes=2):
                if after.label == label:
                    self.check(after)
                    return
        raise LookupError(f"no state is labelled {label!r}")
