"""Processes that work on one store and are killed; what they were answered is kept outside of it.

Every worker writes one log, a line at a time: what it is about to send, and what it was answered.
The log of a killed worker is whole up to the kill.  So it tells afterwards what was acknowledged,
and what a dead worker may have had recorded without telling anybody.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support import LEVELS

from txstore import FileStoreManager
from txstore.options import Level

#: Seconds for which a worker waits for a lock, and a test for an answer of any worker: far more
#: than a slow machine needs, so that nothing but a lock that is never freed comes to their end.
LOCK_TIMEOUT, PATIENCE = 200.0, 300.0


class Line(NamedTuple):
    """A line of the log: ``try`` before a call; ``ack`` or ``no`` after it; ``fail`` for what must
    not happen; ``dead`` for a process that was killed."""

    kind: str
    worker: str
    what: str
    number: int
    payload: bytes

    @property
    def pid(self) -> str:
        return self.worker.partition(".")[0]


class Log:
    """The log as a worker writes it, or a test reads it.

    :ivar over: set when the worker is to end
    """

    def __init__(self, path: Path, worker: str = "-") -> None:
        self.path, self.worker, self.over = path, worker, threading.Event()
        self._looked_at = self._acks = 0
        self._parent = os.getppid()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @property
    def ended(self) -> bool:
        """Whether the worker is to end: it was told, or nobody is left to tell it."""
        return self.over.is_set() or os.getppid() != self._parent

    def write(self, kind: str, what: str, number: int = 0, payload: bytes = b"") -> None:
        line = f"{kind} {self.worker} {what} {number} {payload.hex()}\n".encode()
        assert os.write(self._fd, line) == len(line)

    def lines(self) -> list[Line]:
        """Everything that was logged; fails if there is anything that must not be."""
        found = []
        for text in self.path.read_text(encoding="ascii").splitlines():
            kind, worker, what, number, payload = text.split(" ")
            found.append(Line(kind, worker, what, int(number), bytes.fromhex(payload)))
        failed = [
            f"{one.worker}: {one.what}\n{one.payload.decode()}"
            for one in found
            if one.kind == "fail"
        ]
        assert not failed, "\n".join(failed)
        return found

    def acks(self) -> int:
        """How many acknowledgements there are so far; fails if there is a line that must not be."""
        while part := os.pread(self._fd, 1 << 20, self._looked_at):
            whole = part[: part.rfind(b"\n") + 1]
            if not whole:
                break
            self._looked_at += len(whole)
            self._acks += whole.count(b"ack ")
            if b"fail " in whole:
                self.lines()
        return self._acks


#: What a worker does with a store, until it has done it or is killed.
Job = Callable[[FileStoreManager, Log, random.Random], None]


@dataclass
class Plan:
    """What the workers of a fleet are to do.

    :ivar storage: a folder; for stores over two servers the object store's URL
    :ivar job: a module's function; done by each thread of each worker
    :ivar threads: of each worker
    :ivar working: PostgreSQL's URL then
    :ivar levels: of the workers, in turn
    """

    storage: Path | str
    log: Path
    job: Job
    seed: int
    threads: int = 1
    working: str | None = None
    levels: tuple[Level, ...] = LEVELS


def work(plan: Plan, number: int, store: FileStoreManager | None = None) -> list[Log]:
    """Be a worker, with a manager of one's own or one that was there before a fork.

    :return: where it stays a part of this process: the logs of its threads, to tell them the end
    """
    level = plan.levels[number % len(plan.levels)]
    own = store or FileStoreManager(
        plan.storage, plan.working, durability=level, lock_timeout=LOCK_TIMEOUT
    )
    logs = [Log(plan.log, f"{os.getpid()}.{number}.{one}") for one in range(plan.threads)]
    threads = [threading.Thread(target=_do, args=(plan, own, log)) for log in logs]
    for one in threads:
        one.start()
    if store is None or os.getpid() != _MAIN:
        for one in threads:
            one.join()
    return logs


_MAIN = os.getpid()


def _do(plan: Plan, store: FileStoreManager, log: Log) -> None:
    rng = random.Random(f"{plan.seed}/{log.worker.partition('.')[2]}")
    try:
        plan.job(store, log, rng)
    except BaseException:
        log.write("fail", "an-exception", payload=traceback.format_exc().encode())
        raise


class Fleet:
    """Workers that are killed and replaced."""

    def __init__(self, start: Callable[[int], int], count: int, log: Log) -> None:
        self._start, self._log = start, log
        self._pids = [start(number) for number in range(count)]
        self._started = count

    @classmethod
    def forked(cls, plan: Plan, count: int, store: FileStoreManager | None = None) -> Fleet:
        """Forks of this process.

        :param store: the manager that all of them inherit; else each makes its own
        """
        return cls(partial(_fork, plan, store), count, Log(plan.log))

    @classmethod
    def unrelated(cls, plan: Plan, count: int) -> Fleet:
        """New interpreters, which share nothing with this process."""
        return cls(partial(_interpreter, plan), count, Log(plan.log))

    def replace_one(self, rng: random.Random) -> None:
        """Kill a worker, whatever it is doing, and start another."""
        self._kill(self._pids.pop(rng.randrange(len(self._pids))))
        self._pids.append(self._start(self._started))
        self._started += 1

    def replace_while_working(self, kills: int, acks_between: int, rng: random.Random) -> None:
        """Kill and replace workers, each after so many more acknowledgements."""
        for _ in range(kills):
            self.wait_for(self._log.acks() + acks_between)
            self.replace_one(rng)
        self.wait_for(self._log.acks() + acks_between)

    def wait_for(self, acks: int) -> None:
        """Until there are so many acknowledgements."""
        seen, since = self._log.acks(), time.monotonic()
        while seen < acks:
            time.sleep(0.002)  # between two looks; nothing rests on how long it is
            if (now := self._log.acks()) != seen:
                seen, since = now, time.monotonic()
            for pid in self._pids:
                assert os.waitpid(pid, os.WNOHANG) == (0, 0), "a worker ended by itself"
            assert time.monotonic() - since < PATIENCE, f"nobody answers any more, after {now}"

    def wait(self) -> None:
        """Until all have done their work."""
        for pid in self._pids:
            _, status = os.waitpid(pid, 0)
            self._log.lines()
            assert os.waitstatus_to_exitcode(status) == 0
        self._pids = []

    def kill(self) -> None:
        """Kill all of them."""
        while self._pids:
            self._kill(self._pids.pop())

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._log.acks()
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended by itself"
        self._log.write("dead", str(pid))

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _fork(plan: Plan, store: FileStoreManager | None, number: int) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        work(plan, number, store)
    except BaseException:  # noqa: BLE001 - told in full; the child must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _interpreter(plan: Plan, number: int) -> int:
    call = "import fleet, sys; fleet.interpreted(sys.argv[1], sys.argv[2])"
    arguments = [sys.executable, "-c", call, pickle.dumps(plan).hex(), str(number)]
    # Waited for by its number, as the forked ones are.
    # Where the job's module is found, and this one.
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(arguments, env=path)
    process.returncode = 0
    return process.pid


def interpreted(plan: str, number: str) -> None:
    """What a new interpreter does."""
    work(pickle.loads(bytes.fromhex(plan)), int(number))  # of our own making
