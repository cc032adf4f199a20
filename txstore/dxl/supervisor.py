"""Several serving processes over one store, each started again when it dies."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from txstore.dxl.config import ServiceConfig
from txstore.dxl.service import STOP_TIMEOUT

logger = logging.getLogger(__name__)

#: Seconds: first and longest pause before a dead worker is started again, and how long one has to
#: live for the pauses to begin anew.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
LIVED_LONG = 30.0

#: Seconds that workers may take to stop before they are killed.
PATIENCE = STOP_TIMEOUT + 5.0


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    ready: bool = False
    started: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE


class Supervisor:
    """Keeps ``count`` workers running until SIGTERM or SIGINT.

    :param config: what they serve, also those that are started again when its file has changed
    :param count: how many
    :param on_ready: called once, when all of them answer requests
    """

    def __init__(self, config: ServiceConfig, count: int, on_ready: Callable[[], None]) -> None:
        self._config = config
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._on_ready = on_ready
        self._said_ready = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Until told to stop.

        :return: exit code: 0 if every worker stopped cleanly, else 1
        """
        with _signals() as told, self._selector:
            self._selector.register(told, selectors.EVENT_READ, None)
            try:
                while not self._step():
                    continue
            finally:
                clean = self._stop_all()
        return 0 if clean else 1

    def _step(self) -> bool:
        """Start what is due and wait for the next event; whether it is the signal to stop."""
        now = time.monotonic()
        waiting = []
        for worker in self._workers:
            if worker.process is None and worker.due <= now:
                self._start(worker)
            elif worker.process is None:
                waiting.append(worker.due - now)
        for key, _ in self._selector.select(min(waiting, default=None)):
            if key.data is None:
                return True
            self._hear(key.data)
        return False

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
            ours.sendall(pickle.dumps(self._config))
        worker.line = ours
        worker.ready = False
        worker.started = time.monotonic()
        self._selector.register(ours, selectors.EVENT_READ, worker)
        logger.info("Worker %d is process %d", worker.number, worker.process.pid)

    def _hear(self, worker: _Worker) -> None:
        assert worker.line is not None
        try:
            said = worker.line.recv(1)
        except ConnectionResetError:
            said = b""
        if not said:
            self._bury(worker)
            return
        worker.ready = True
        if not self._said_ready and all(each.ready for each in self._workers):
            self._said_ready = True
            self._on_ready()

    def _bury(self, worker: _Worker) -> None:
        assert worker.line is not None
        assert worker.process is not None
        self._selector.unregister(worker.line)
        worker.line.close()
        # Its line is closed, so it is about to end, unless it hangs: then it is of no use either.
        code = _end(worker.process, 1.0)
        if time.monotonic() - worker.started > LIVED_LONG:
            worker.pause = FIRST_PAUSE
        logger.error(
            "Worker %d (process %d) ended with code %d; starting it again in %.1f s",
            *(worker.number, worker.process.pid, code, worker.pause),
        )
        worker.process = None
        worker.line = None
        worker.due = time.monotonic() + worker.pause
        worker.pause = min(worker.pause * 2, LONGEST_PAUSE)

    def _stop_all(self) -> bool:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        codes = [_end(process, max(deadline - time.monotonic(), 0.0)) for process in running]
        for worker in self._workers:
            if worker.line is not None:
                worker.line.close()
        # One that was told before it could listen had nothing at hand.
        return all(code in (0, -signal.SIGTERM) for code in codes)


def _end(process: subprocess.Popen[bytes], patience: float) -> int:
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that can be read from once SIGTERM or SIGINT came."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {}
    with ours, theirs:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: None)
        previous = signal.set_wakeup_fd(theirs.fileno())
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
