"""Several serving processes over one store, each started again when it dies or hangs."""

from __future__ import annotations

import contextlib
import logging
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from txstore.dxl.config import ServiceConfig
from txstore.dxl.duty import Duty
from txstore.dxl.logs import Logs
from txstore.dxl.reloading import read_again
from txstore.dxl.service import FAILED, REPLACED, STOP_TIMEOUT
from txstore.dxl.signals import reload_signals, stop_signals
from txstore.dxl.systemd import Herald
from txstore.dxl.worker import READY

logger = logging.getLogger(__name__)

#: Seconds: first and longest pause before a dead worker is started again, and how long one has to
#: live for the pauses to begin anew.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
LIVED_LONG = 30.0

#: Seconds for which a worker may give no sign of life before it is killed, and how many times as
#: long it may take to its first one, while it opens the store.  Stopping takes less.
SILENCE = 30.0
FIRST_SIGN = 10

#: Seconds by which the supervisor may wake up too late before it takes itself for stopped.
OVERSLEPT = 1.0

#: Seconds that workers may take to stop before they are killed.
PATIENCE = STOP_TIMEOUT + 5.0


_CLEAN = (0, -signal.SIGTERM, -signal.SIGHUP)


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    ready: bool = False
    killed: bool = False
    started: float = 0.0
    silent_after: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE


class Supervisor:
    """Keeps ``count`` workers running until it is told to stop by a signal.

    :param config: what they serve, also those that are started again when its file has changed
    :param count: how many
    :param herald: told when all of them answer requests
    :param logs: how the supervisor logs; its workers do as it does
    :param metrics: folder in which they count what they do
    """

    def __init__(
        self,
        config: ServiceConfig,
        count: int,
        herald: Herald,
        logs: Logs,
        metrics: str | None = None,
    ) -> None:
        self._config, self._logs, self._metrics = config, logs, metrics
        self._started = 0
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._herald = herald
        self._reloading = set(reload_signals())
        self._replaced = False
        self._awaited = {worker.number for worker in self._workers}
        self._awake = time.monotonic()
        self._selector = selectors.DefaultSelector()

    @property
    def serving(self) -> int:
        """How many workers answer requests, as far as is known."""
        return sum(worker.ready for worker in self._workers)

    @property
    def restarts(self) -> int:
        """How many times a worker was started again."""
        return max(self._started - len(self._workers), 0)

    def run(self) -> int:
        """Until told to stop, or until a worker finds that the store was removed or replaced.

        :return: exit code: 0 if every worker stopped cleanly, 75 where the store is another, else 1
        """
        with _signals(*stop_signals(), *self._reloading) as told, self._selector:
            self._selector.register(told, selectors.EVENT_READ, partial(self._heed, told))
            try:
                while not self._step():
                    continue
            finally:
                clean = self._stop_all()
        if self._replaced:
            return REPLACED
        return 0 if clean else FAILED

    def _step(self) -> bool:
        """Start what is due and wait for the next event; whether it is time to stop."""
        self._herald.alive()
        began = time.monotonic()
        # Not longer, so that a part of its own time that it was stopped for does not go unseen.
        pause = SILENCE / 3
        for worker in self._workers:
            if worker.process is None and worker.due <= began:
                self._start(worker)
            elif worker.process is None:
                pause = min(pause, worker.due - began)
            elif not worker.killed:
                pause = min(pause, max(worker.silent_after - began, 0.0))
        if any(key.data() for key, _ in self._selector.select(pause)):
            return True
        # One look at the clock, and all the time since the last one counts: wherever in a step it
        # was stopped, it sees that here, before it takes a worker for silent.
        now = time.monotonic()
        overslept = now - self._awake > pause + OVERSLEPT
        self._awake = now
        for worker in self._workers:
            if overslept:
                # It was stopped or had no processor for a while, and so, perhaps, had its workers.
                worker.silent_after = max(worker.silent_after, now + SILENCE)
            elif worker.silent_after <= now:
                self._kill_silent(worker)
        return self._replaced

    def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            worker.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "txstore.dxl.worker"),
                    *(self._config.config_dir, str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        with contextlib.suppress(ConnectionError):  # it died: that is heard as at any other time
            ours.sendall(pickle.dumps(self._duty(worker.number)))
        self._started += 1
        worker.line = ours
        worker.ready = worker.killed = False
        worker.started = time.monotonic()
        worker.silent_after = worker.started + SILENCE * FIRST_SIGN
        self._selector.register(ours, selectors.EVENT_READ, partial(self._hear, worker))
        logger.info("Worker %d is process %d", worker.number, worker.process.pid)

    def _duty(self, number: int) -> Duty:
        logs = self._logs._replace(worker=number)
        return Duty(self._config, number, logs, self._metrics)

    def _hear(self, worker: _Worker) -> bool:
        """What a worker says; never that it is time to stop."""
        assert worker.line is not None
        try:
            said = worker.line.recv(4096)
        except ConnectionResetError:
            said = b""
        if not said:
            self._bury(worker)
            return False
        worker.silent_after = time.monotonic() + SILENCE
        if READY in said:
            worker.ready = True
            if worker.number in self._awaited:
                self._awaited.remove(worker.number)
                if not self._awaited:
                    self._herald.ready()
        return False

    def _kill_silent(self, worker: _Worker) -> None:
        """Kill a worker that hangs.  That it is dead is heard as at any other time: one that waits
        for a disk in the kernel ends when that answers, and keeps nobody waiting here."""
        if worker.process is None or worker.killed:
            return
        logger.error(
            "Worker %d (process %d) has given no sign of life for %g s; killing it",
            *(worker.number, worker.process.pid, SILENCE),
        )
        worker.killed = True
        worker.process.kill()

    def _bury(self, worker: _Worker) -> None:
        assert worker.line is not None
        assert worker.process is not None
        self._selector.unregister(worker.line)
        worker.line.close()
        # Its line is closed, so it is about to end, unless it hangs: then it is of no use either.
        code = _end(worker.process, 1.0)
        if code == REPLACED:
            # The others' store is gone just as well, though perhaps they have not met it yet.
            self._replaced = True
            worker.process = worker.line = None
            return
        if time.monotonic() - worker.started > LIVED_LONG:
            worker.pause = FIRST_PAUSE
        logger.error(
            "Worker %d (process %d) ended with code %d; starting it again in %.1f s",
            *(worker.number, worker.process.pid, code, worker.pause),
        )
        worker.process = None
        worker.line = None
        worker.ready = False
        worker.due = time.monotonic() + worker.pause
        worker.pause = min(worker.pause * 2, LONGEST_PAUSE)

    def _heed(self, told: socket.socket) -> bool:
        """Do what signals ask for; whether that is to stop."""
        if not set(told.recv(64)) <= self._reloading:
            return True
        self._herald.reloading()
        self._config = read_again(self._config, self._logs)
        for worker in self._workers:
            self._awaited.add(worker.number)
            if worker.line is not None:
                self._give(worker)
        return False

    def _give(self, worker: _Worker) -> None:
        """Give a worker that runs another configuration; one that does not take it hangs."""
        assert worker.line is not None
        assert worker.process is not None
        new = pickle.dumps(self._config)
        try:
            taken = worker.line.send(new, socket.MSG_DONTWAIT)
        except OSError:
            taken = 0
        if taken < len(new):
            worker.killed = True
            worker.process.kill()

    def _stop_all(self) -> bool:
        self._herald.stopping()
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        codes = [_end(process, max(deadline - time.monotonic(), 0.0)) for process in running]
        for worker in self._workers:
            if worker.line is not None:
                worker.line.close()
        # One that was told before it could listen had nothing at hand.
        return all(code in _CLEAN for code in codes)


def _end(process: subprocess.Popen[bytes], patience: float) -> int:
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def _signals(*numbers: signal.Signals) -> Iterator[socket.socket]:
    """A socket from which the numbers of the signals that came can be read."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {}
    with ours, theirs:
        for number in numbers:
            before[number] = signal.signal(number, lambda *_: None)
        previous = signal.set_wakeup_fd(theirs.fileno())
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
