"""Real processes over one store, killed with SIGKILL, and others that go on.

Each worker is told what to send and answers over a pipe.  It kills itself at a call of the seam
that was picked for it, or is killed from outside after a random time.  What was acknowledged is
written down here, by the parent that received the answers.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from functools import partial
from multiprocessing.connection import wait

from crew import Worker, WorkerDiedError
from seam import KillingDisk

from crash.steps import Upload, message, upload
from crash.world import Folders
from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.options import Level

#: About as many operations as a worker makes before it has opened a store and stored two files.
_OPERATIONS = 220


class _Seat:
    """A worker, and what it was asked."""

    def __init__(self, storage: str, level: Level, kill_at: int) -> None:
        self.worker = Worker(
            storage,
            durability=level,
            lock_timeout=20.0,
            disk=partial(KillingDisk, kill_at),
            wait=False,
        )
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
        self._seats: list[_Seat] = []

    def _points(self) -> list[int]:
        points = list(range(1, _OPERATIONS + 1))
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
            for seat in self._seats:
                seat.worker.kill()
        self._finish()

    def _fill(self) -> None:
        while len(self._seats) < self._count:
            if not self._plan:
                self._plan = self._points()
            self._seats.append(_Seat(self.storage, self.level, self._plan.pop()))
        while len(self._open) < self._count + 1:
            self._open.append(self._new_upload())
        for seat in self._seats:
            free = [one for one in self._open if one.file_id not in self._taken]
            if seat.ready and seat.busy is None and free:
                what = self.picker.choice(free)
                seat.busy = what, self.acked.get(what.file_id, 0) + 1
                self._taken.add(what.file_id)
                seat.worker.ask("store_segment", message(*seat.busy))

    def _turn(self) -> None:
        if self.picker.random() < 0.1:
            time.sleep(self.picker.random() * 0.005)
            self.picker.choice(self._seats).worker.kill()  # it may have died by itself by now
        answering = wait([seat.worker.pipe for seat in self._seats], timeout=60.0)
        assert answering, "no worker answers"
        for seat in [one for one in self._seats if one.worker.pipe in answering]:
            try:
                told = seat.worker.answer()
            except WorkerDiedError as died:
                self._died(seat, died)
                continue
            if seat.busy is not None:
                self._answered(seat.busy, told)
            seat.ready, seat.busy = True, None

    def _died(self, seat: _Seat, died: WorkerDiedError) -> None:
        self._seats.remove(seat)
        assert died.code == -signal.SIGKILL, died.code
        self.kills += 1
        if seat.busy is not None:
            self._taken.discard(seat.busy[0].file_id)

    def _answered(self, asked: tuple[Upload, int], told: FileStoreSegmentResult) -> None:
        what, number = asked
        result = "store" if number == what.last else None
        found = told.segments_received, told.file_result
        assert found == (number, result), f"{what.file_id} segment {number}: {found}"
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
