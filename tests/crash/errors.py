"""Every call of a workload fails once, or from then on, with each error that it can fail with.

The caller must see an ``OSError``, or nothing where nothing of his was at stake; when the disk is
well again the same step must go through; and no crash afterwards may break a promise.
"""

from __future__ import annotations

import errno
import itertools
import random
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from crash.oracle import broken, check_recovery, expected
from crash.search import Run, Search, clock_of, states
from crash.steps import Cancel, Close, Open, Send, Session, Step
from crash.world import Folders, fixed
from txstore.errors import TxStoreError
from txstore.testing.disk import SimulatedDisk
from txstore.testing.faults import Fault, FaultPlan
from txstore.testing.powerloss import Platter

#: How many crashes are looked at after a fault.
CRASHES = 3

_FULL, _IO = errno.ENOSPC, errno.EIO

#: What each call can fail with.  0: a short write.
ERRORS: dict[str, tuple[int, ...]] = {
    "create": (_FULL, errno.EMFILE, errno.EACCES),
    "open_or_create": (_FULL, errno.EMFILE),
    "make_folder": (_FULL, errno.EACCES),
    "open": (errno.EMFILE, errno.EACCES),
    "open_folder": (errno.EMFILE, _IO),
    "pwrite": (_FULL, _IO, errno.EINTR, 0),
    "flush": (_IO, errno.EINTR),
    "flush_all": (_IO,),
    "flush_folder": (_IO,),
    "rename": (_IO, _FULL, errno.EACCES),
    "link": (_IO, _FULL),
    "unlink": (_IO, errno.EACCES),
    "truncate": (_IO,),
    "pread": (_IO,),
    "fstat": (_IO,),
    "stat": (_IO,),
    "names_version": (_IO,),
    "chmod": (_IO,),
    "chmod_folder": (_IO,),
    "list_folder": (_IO, errno.EMFILE),
    "try_lock": (errno.ENOLCK,),
    "unlock": (_IO,),
    "last_holder": (_IO,),
    "sign": (_FULL,),
    "close": (_IO,),
    "connect": (errno.EMFILE,),
    "commit": (_IO, _FULL, errno.EBUSY),
    "checkpoint": (_IO, errno.EBUSY),
    "statement": (_IO, _FULL, errno.EBUSY),
}


class Injection(NamedTuple):
    """One fault in one run.

    :ivar nth: which of the calls of that name
    :ivar after: the call is carried out, and fails all the same
    :ivar restart: the failed step is tried again by a new manager
    """

    run: Run
    call: str
    nth: int
    error: int
    forever: bool
    after: bool
    restart: bool

    @property
    def label(self) -> str:
        name = errno.errorcode.get(self.error, "SHORT")
        flags = [word for word in ("forever", "after", "restart") if getattr(self, word)]
        return "#".join([self.run.name, self.call, str(self.nth), name, *flags])

    @classmethod
    def of(cls, label: str, run: Run) -> Injection:
        _, call, nth, error, *flags = label.split("#")
        number = 0 if error == "SHORT" else getattr(errno, error)
        words = ("forever" in flags, "after" in flags, "restart" in flags)
        return cls(run, call, int(nth), number, *words)


def injections(run: Run, folders: Folders) -> Iterator[Injection]:
    """Every fault that a run can meet."""
    plan = FaultPlan(keep_history=True)
    with folders.one() as root:
        _Faulty(run, root, plan, "").go(None)
    assert plan.history is not None
    counted: dict[str, int] = {}
    for call, _ in plan.history:
        nth = counted[call] = counted.get(call, 0) + 1
        afters = (False, True) if call in ("commit", "unlink", "rename") else (False,)
        for error, forever, after, restart in itertools.product(
            ERRORS.get(call, ()), (False, True), afters, (False, True)
        ):
            # SQLite says "full" and "locked" only of what it has not committed.
            if not (after and call == "commit" and error != _IO):
                yield Injection(run, call, nth, error, forever, after, restart)


def inject(one: Injection, folders: Folders, crashes: int) -> int:
    """Run with a fault, hold every answer to the promises, then look at some crashes.

    :param crashes: how many
    :return: how many faults struck
    :raises Exception: a promise is broken
    """
    fault = Fault(
        one.call, one.nth, one.error, forever=one.forever, after=one.after, short=not one.error
    )
    plan = FaultPlan(fault)
    with folders.one() as root:
        faulty = _Faulty(one.run, root, plan, one.label)
        faulty.go(one)
    if not fault.done:
        return 0
    search = Search(one.run, folders)
    picker = random.Random(one.label)
    log = faulty.disk.log
    since = range(min(faulty.failed_at, len(log)), len(log) + 1)
    only = set(picker.sample(since, min(2, len(since))))
    found = list(states(log, Platter(), (), one.label, randoms=1, only=only))
    for state in picker.sample(found, min(crashes, len(found))):
        try:
            search.check(state)
        except Exception as error:
            raise broken(6, f"after the fault, at {state.label}: {error!r}") from error
    return 1


class _Faulty:
    """A run over a disk that fails."""

    def __init__(self, run: Run, root: str, plan: FaultPlan, seed: str) -> None:
        self.run, self.plan, self.seed = run, plan, seed
        self.clock = clock_of(())
        self.disk = SimulatedDisk(root, faults=plan, boot="boot-0", mounts=run.workload.mounts)
        self.session = Session(
            root, self.disk, self.clock, run.level, (), run.workload.working, run.workload.options
        )
        self.failed_at = 0

    def go(self, one: Injection | None) -> None:
        """All steps, each again when it failed; then everything to its end."""
        with fixed(self.seed, self.clock):
            try:
                for step in self.run.workload.steps:
                    self._step(step, one)
                self.plan.clear()
                if one is None:
                    return
                if not self.session.has_manager():
                    self.session.do(Open())
                kill, _ = expected(self.session.history)
                with _broken_by_errors("what is left cannot be gone on with"):
                    check_recovery(self.session, kill, self.run.workload.uploads)
            finally:
                self.plan.clear()
                self.session.close()

    def _step(self, step: Step, one: Injection | None) -> None:
        try:
            self.session.do(step)
            return
        except OSError as error:
            if error.errno is None and not isinstance(error, TimeoutError):
                raise broken(6, f"{type(error).__name__} has no errno: {error}") from error
        except TxStoreError as error:
            raise broken(6, f"refused after a fault in an earlier step: {error!r}") from error
        assert one is not None
        self.failed_at = self.failed_at or len(self.disk.log)
        if one.forever:
            try:
                self.session.do(step)  # nothing is lost by trying
                return
            except OSError:
                pass
            except KeyError:
                assert isinstance(step, Close)
        self.plan.clear()
        if isinstance(step, Close):
            return
        if one.restart and isinstance(step, Send | Cancel):
            self.session.restart(step.actor)
        with _broken_by_errors("the step that failed does not go through"):
            self.session.do(step)


@contextmanager
def _broken_by_errors(text: str) -> Iterator[None]:
    """The disk is well again: no error is right any more."""
    try:
        yield
    except (TxStoreError, OSError) as error:
        raise broken(6, f"after the fault {text}: {error!r}") from error


def sampled(runs: list[Run], folders: Folders, count: int, seed: str) -> list[Injection]:
    """``count`` of all injections: of each call as many as of any other where there are enough, and
    each of its calls once before any of them a second time."""
    by_call: dict[str, dict[tuple[str, int], list[Injection]]] = {}
    for run in runs:
        for one in injections(run, folders):
            by_call.setdefault(one.call, {}).setdefault((run.name, one.nth), []).append(one)
    picker = random.Random(seed)
    lists = []
    for by_number in by_call.values():
        numbers = list(by_number.values())
        picker.shuffle(numbers)
        for some in numbers:
            picker.shuffle(some)
        lists.append(_in_turn(numbers))
    return list(itertools.islice(_in_turn(lists), count))


def _in_turn(lists: Iterable[Iterable[Injection]]) -> Iterator[Injection]:
    """The first of each list, then the second of each, and so on."""
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*lists))
    return (one for one in mixed if one is not None)


def inject_some(run: Run, count: int) -> tuple[int, list[tuple[str, str]]]:
    """Inject ``count`` of all faults that a run can meet.

    :return: how many struck; and of those that broke something the labels, with what was broken
    """
    folders, struck, failures = Folders(), 0, []
    try:
        for one in sampled([run], folders, count, run.name):
            try:
                struck += inject(one, folders, CRASHES)
            except Exception:  # noqa: BLE001 - it is reported
                failures.append((one.label, traceback.format_exc(limit=-5)))
    finally:
        folders.close()
    return struck, failures
