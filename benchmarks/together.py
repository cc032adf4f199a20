"""Several at the same time: threads of one store, and processes with a store each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier

from benchmarks.subjects import MIB, Message, Segments, Store, plain, txstore, upstream
from txstore.options import Level

_context = get_context("spawn")

#: One operation of one thread or process: the seconds that it took.
Step = Callable[[], float]
#: Makes what a process does, in that process.
Make = Callable[[], Step]


class Threads:
    """A step for each thread; a batch's one figure is the time that one operation took on the
    average, of all threads together."""

    def __init__(self, steps: list[Step], batch: int, close: Callable[[], None]) -> None:
        self._steps, self._batch, self._close = steps, batch, close
        self._pool = ThreadPoolExecutor(len(steps))
        self._start = Barrier(len(steps))

    def run(self) -> list[float]:
        done = [self._pool.submit(self._work, step) for step in self._steps]
        # Told by those who work: this thread may wake up when they have done half of it.
        times = [one.result() for one in done]
        first, last = min(start for start, _ in times), max(end for _, end in times)
        return [(last - first) / (len(self._steps) * self._batch)]

    def _work(self, step: Step) -> tuple[float, float]:
        self._start.wait()
        start = time.perf_counter()
        for _ in range(self._batch):
            step()
        return start, time.perf_counter()

    def close(self) -> None:
        self._pool.shutdown()
        self._close()


class Processes:
    """A process for each maker; batches as those of ``Threads``.

    :param seconds: work for as long as this in each batch instead, and answer every operation's
        time
    """

    def __init__(self, makers: Sequence[Make], batch: int, seconds: float | None = None) -> None:
        self._batch, self._seconds = batch, seconds
        self._workers = [_Worker(make) for make in makers]
        for worker in self._workers:
            worker.answer()  # it is ready

    def run(self) -> list[float]:
        for worker in self._workers:
            worker.ask(self._batch, self._seconds)
        answers = [worker.answer() for worker in self._workers]
        if self._seconds is not None:
            return [taken for _, _, times in answers for taken in times]
        # The clock is the same for all processes.
        wall = max(end for _, end, _ in answers) - min(start for start, _, _ in answers)
        return [wall / (len(self._workers) * self._batch)]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class InTurn:
    """Processes that take the next segment of the same transfer in turn; each operation is timed
    where it is done."""

    def __init__(self, folder: Path, level: Level, size: int, batch: int, count: int = 2) -> None:
        self._batch, self._segments = batch, 0
        self._most = 64 * MIB // size
        self._workers = [_Worker(partial(_one_for_all, folder, level, size)) for _ in range(count)]
        for worker in self._workers:
            worker.answer()

    def run(self) -> list[float]:
        times = []
        for _ in range(self._batch):
            self._segments += 1
            worker = self._workers[self._segments % len(self._workers)]
            # The number of the segment; 1 begins another transfer.
            worker.ask(-((self._segments - 1) % self._most) - 1, None)
            times += worker.answer()[2]
        return times

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    """A process that works when it is asked to."""

    def __init__(self, make: Callable[[], Callable[..., float]]) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_work, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, batch: int, seconds: float | None) -> None:
        self._pipe.send((batch, seconds))

    def answer(self) -> tuple[float, float, list[float]]:
        answer: tuple[float, float, list[float]] = self._pipe.recv()
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(30)


def _work(pipe: Connection, make: Callable[[], Callable[..., float]]) -> None:
    step = make()
    pipe.send((0.0, 0.0, []))
    while True:
        try:
            batch, seconds = pipe.recv()
        except EOFError:
            return
        start, times = time.perf_counter(), []
        if seconds is not None:
            while time.perf_counter() - start < seconds:
                times.append(step())
        elif batch < 0:
            times.append(step(-batch))
        else:
            times = [step() for _ in range(batch)]
        pipe.send((start, time.perf_counter(), times))


# --- what a process does -------------------------------------------------------------------------


def segments_of_its_own(folder: Path, level: Level | None, size: int) -> Step:
    """Segments of a transfer of its own, in the store under the folder.

    :param level: ``None``: upstream's store, which shares nothing, so it gets a folder of its own
    """
    store: Store = upstream(folder) if level is None else txstore(folder, level)
    return Segments(store, size, 1).step


def _one_for_all(folder: Path, level: Level, size: int) -> Callable[[int], float]:
    store, file_id = txstore(folder, level), "in-turn"

    def step(number: int) -> float:
        if number == 1:
            store.cancel(file_id)
        message: Message = plain(file_id, number, number.to_bytes(4, "big") * (size // 4))
        start = time.perf_counter()
        store.store_segment(message)
        return time.perf_counter() - start

    return step
