"""Real processes over one store, killed with SIGKILL, and others that go on.

Each worker is told what to send and answers over a pipe.  It kills itself at a call of the seam
that was picked for it, or is killed from outside after a random time.  What was acknowledged is
written down here, by the parent that received the answers.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from multiprocessing.connection import Connection, wait
from typing import Any

from crash.steps import Upload, message, upload
from crash.world import Folders
from txstore import FileStoreManager
from txstore.options import Level
from txstore.testing.faults import FaultPlan
from txstore.testing.faulty import FaultyDisk

_FORK = multiprocessing.get_context("fork")

#: About as many calls as a worker makes before it has opened a store and stored two files.
_CALLS = 260


class _Killing(FaultPlan):
    """Kills the process instead of raising."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def struck(self, call: str, path: str) -> list[Any]:
        struck = super().struck(call, path)
        if self.calls == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        return struck


def _work(pipe: Connection, storage: str, level: Level, kill_at: int) -> None:
    """A worker's life: open, answer, die."""
    try:
        manager = FileStoreManager(
            storage, durability=level, disk=FaultyDisk(_Killing(kill_at)), lock_timeout=20.0
        )
        pipe.send("ready")
        while True:
            what, number = pipe.recv()
            answer = manager.store_segment(message(what, number))
            pipe.send((answer.segments_received, answer.file_result))
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - it is reported
        pipe.send(f"{type(error).__name__}: {error}")
        os._exit(1)


class _Worker:
    def __init__(self, storage: str, level: Level, kill_at: int) -> None:
        self.pipe, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_work, args=(theirs, storage, level, kill_at))
        self.process.start()
        theirs.close()
        self.busy: tuple[Upload, int] | None = None
        self.ready = False


class Kills:
    """Workers and their parent.

    :ivar kills: how many workers died of SIGKILL
    :ivar acked: id of an upload -> segments acknowledged
    """

    def __init__(self, storage: str, level: Level, seed: str, workers: int = 3) -> None:
        self.storage, self.level = storage, level
        self.picker = random.Random(seed)
        self.kills = 0
        self.acked: dict[str, int] = {}
        self._plan = self._points()
        self._open: list[Upload] = []
        self.done: list[Upload] = []
        self._taken: set[str] = set()
        self._made = 0
        self._count = workers
        self._workers: list[_Worker] = []

    def _points(self) -> list[int]:
        points = list(range(1, _CALLS + 1))
        self.picker.shuffle(points)
        return points

    def _new_upload(self) -> Upload:
        self._made += 1
        sizes = [self.picker.choice((0, 1, 700, 4000)) for _ in range(self.picker.randint(1, 4))]
        name = f"{self.picker.choice(('', 'sub/', 'a/b/'))}{self._made}.bin"
        return upload(f"id-{self._made}", name, *sizes)

    def run(self, kills: int) -> None:
        """Go on until so many workers were killed, then finish every upload.

        :raises AssertionError: an answer was not what it must be
        """
        try:
            while self.kills < kills:
                self._fill()
                self._turn()
        finally:
            for worker in self._workers:
                # Later workers have inherited our end of its pipe, so closing it says nothing.
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()
        self._finish()

    def _fill(self) -> None:
        while len(self._workers) < self._count:
            if not self._plan:
                self._plan = self._points()
            self._workers.append(_Worker(self.storage, self.level, self._plan.pop()))
        while len(self._open) < self._count + 1:
            self._open.append(self._new_upload())
        for worker in self._workers:
            free = [one for one in self._open if one.file_id not in self._taken]
            if worker.ready and worker.busy is None and free:
                what = self.picker.choice(free)
                worker.busy = what, self.acked.get(what.file_id, 0) + 1
                self._taken.add(what.file_id)
                try:
                    worker.pipe.send(worker.busy)
                except BrokenPipeError:
                    self._died(worker)

    def _turn(self) -> None:
        if self.picker.random() < 0.1:
            time.sleep(self.picker.random() * 0.005)
            self.picker.choice(self._workers).process.kill()  # it may have died by itself by now
        by_pipe = {id(worker.pipe): worker for worker in self._workers}
        ready = wait([worker.pipe for worker in self._workers], timeout=60.0)
        assert ready, "no worker answers"
        for pipe in ready:
            worker = by_pipe[id(pipe)]
            try:
                told = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._died(worker)
                continue
            if told == "ready":
                worker.ready = True
                continue
            assert worker.busy is not None, told
            self._answered(worker.busy, told)
            worker.busy = None

    def _died(self, worker: _Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.process.join()
        worker.pipe.close()
        assert worker.process.exitcode == -signal.SIGKILL, worker.process.exitcode
        self.kills += 1
        if worker.busy is not None:
            self._taken.discard(worker.busy[0].file_id)

    def _answered(self, asked: tuple[Upload, int], told: object) -> None:
        what, number = asked
        result = "store" if number == what.last else None
        assert told == (number, result), f"{what.file_id} segment {number}: {told}"
        self.acked[what.file_id] = number
        self._taken.discard(what.file_id)
        if number == what.last:
            self._open.remove(what)
            self.done.append(what)

    def _finish(self) -> None:
        """What the dead left is there, and can be gone on with."""
        with FileStoreManager(self.storage, durability=self.level) as manager:
            for what in [*self._open, *self.done]:
                acked = self.acked.get(what.file_id, 0)
                if what in self._open:
                    status = manager.status(what.file_id)
                    found = status.segments_received if status is not None else 0
                    assert acked <= found <= acked + 1, f"{what.file_id}: {found}, acked {acked}"
                for number in range(acked + 1, what.last + 1):
                    manager.store_segment(message(what, number))
                with open(os.path.join(self.storage, what.name), "rb") as file:
                    assert file.read() == what.content, what.file_id


def is_sound(journal: str) -> bool:
    """Whether SQLite finds nothing wrong with a journal."""
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return bool(verdict == "ok")


def kill_some(level: Level, kills: int) -> tuple[int, int]:
    """Kill so many workers of a store.

    :return: how many were killed, and how many files were stored
    :raises AssertionError: something acknowledged is lost, or the journal is damaged
    """
    folders = Folders()
    try:
        with folders.one() as root:
            storage = os.path.join(root, "storage")
            killing = Kills(storage, level, seed=f"kills at {level}")
            killing.run(kills)
            assert is_sound(os.path.join(storage, ".workdir", "journal.db"))
            return killing.kills, len(killing.done)
    finally:
        folders.close()
