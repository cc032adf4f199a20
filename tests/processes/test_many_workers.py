"""Many workers, one storage: what was acknowledged is kept, whoever is killed.

Each scenario runs in a process of its own, from which the workers are forked.  A failure names the
seed; what the workers were answered is in the log beside the storage.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from crew import Worker, apart, visible
from finishing import NAME, content, finish_under_one_name
from fleet import Fleet, Line, Log, Plan, work
from pushing import TRANSFERS, check_transfers, push
from support import FULL, LEVELS, at_each_level, claim, message, outcome

from txstore import FileStoreManager
from txstore.errors import SequenceError
from txstore.options import Level

SEED = 4
WORKERS = 32 if FULL else 8
KILLS = 150 if FULL else 16
ACKS_BETWEEN = 40 if FULL else 25

# --- segments of shared transfers ----------------------------------------------------------------


def killed_while_pushing(folder: Path, kind: str) -> None:
    storage, log = folder / "storage", Log(folder / "log")
    plan = Plan(storage, log.path, push, SEED, threads=2)
    rng = random.Random(SEED)
    if kind == "prefork":
        # The manager is made before the forks and used on both sides, by threads in both.
        with FileStoreManager(storage, durability="file") as store:
            here = work(plan, 1000, store)
            with Fleet.forked(plan, WORKERS, store) as fleet:
                fleet.replace_while_working(KILLS, ACKS_BETWEEN, rng)
                for one in here:
                    one.over.set()
                fleet.kill()
    else:
        few = kind == "unrelated"  # starting an interpreter takes long
        start = Fleet.unrelated if kind == "unrelated" else Fleet.forked
        with start(plan, WORKERS // 2 if few else WORKERS) as fleet:
            fleet.replace_while_working(KILLS // 4 if few else KILLS, ACKS_BETWEEN, rng)
            fleet.kill()
    lines = log.lines()
    assert {line.what for line in lines if line.kind == "ack"} == {
        f"t{number}" for number in range(TRANSFERS)
    }
    with FileStoreManager(storage) as store:
        check_transfers(store, lines)


@pytest.mark.parametrize("kind", ["forked", "prefork", "unrelated"])
def test_nothing_acknowledged_is_lost_when_workers_of_all_levels_are_killed(
    tmp_path: Path, kind: str
) -> None:
    apart(killed_while_pushing, tmp_path, kind)


# --- one name ------------------------------------------------------------------------------------


def killed_while_finishing(folder: Path) -> None:
    storage, log = folder / "storage", Log(folder / "log")
    plan = Plan(storage, log.path, finish_under_one_name, SEED)
    over, torn = threading.Event(), []

    def read() -> None:
        while not over.is_set():
            data = outcome((storage / NAME).read_bytes)
            if isinstance(data, FileNotFoundError) and not seen:
                continue
            seen.append(True)
            del seen[1:]
            if not isinstance(data, bytes) or data != content(data[:100].decode().strip()):
                torn.append(data)

    seen: list[bool] = []
    with Fleet.forked(plan, WORKERS) as fleet:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            fleet.replace_while_working(KILLS, ACKS_BETWEEN // 2, random.Random(SEED))
            fleet.kill()
        finally:
            over.set()
            reader.join()
    assert not torn, f"a reader saw {torn[0]!r:.200}"
    with FileStoreManager(storage) as store:
        store.transfers()
    # Another life of the store settles what is left, and nothing older may come back.
    with FileStoreManager(storage) as store:
        for status in store.transfers():
            store.cancel(status.file_id)
    winner = visible(storage)[NAME][:100].decode().strip()
    assert visible(storage)[NAME] == content(winner)
    check_winner(log.lines(), winner)


def check_winner(lines: list[Line], winner: str) -> None:
    """No file that was begun and acknowledged after the winner had come to its end."""
    began = {line.what: at for at, line in enumerate(lines) if line.kind == "try"}
    acked = {line.what: at for at, line in enumerate(lines) if line.kind == "ack"}
    died = {line.what: at for at, line in enumerate(lines) if line.kind == "dead"}
    worker = winner.partition("-")[0]
    end = acked.get(winner, died.get(worker, len(lines)))
    later = [file_id for file_id in acked if began[file_id] > end]
    assert not later, f"{winner} is there, over {later}"


def test_under_one_name_the_last_is_there_and_readers_see_whole_files_only(
    tmp_path: Path,
) -> None:
    apart(killed_while_finishing, tmp_path)


# --- a hundred at once ---------------------------------------------------------------------------

HUNDRED = 100
PARTS = 4


def _part(file_id: str, number: int) -> bytes:
    return random.Random(f"{file_id}/{number}").randbytes(3_000 + number)


def _mine(log: Log, shift: int) -> Iterable[str]:
    """Each of 4 workers of 5 threads has five transfers; which ones is shifted between stages."""
    _, worker, thread = log.worker.split(".")
    slot = (int(worker) * 5 + int(thread) + shift) % 20
    return [f"h{slot + 20 * turn}" for turn in range(5)]


def begin_hundred(store: FileStoreManager, log: Log, _: random.Random) -> None:
    for file_id in _mine(log, 0):
        _send(store, log, file_id, 1)


def go_on_with_hundred(store: FileStoreManager, log: Log, _: random.Random) -> None:
    for number in range(2, PARTS + 1):
        for file_id in _mine(log, 7 * number):
            _send(store, log, file_id, number)
            log.over.wait(0)


def finish_hundred(store: FileStoreManager, log: Log, _: random.Random) -> None:
    for file_id in _mine(log, 3):
        data = b"".join(_part(file_id, number) for number in range(1, PARTS + 1))
        fields = {"file_id": file_id, "segment_number": str(PARTS + 1)}
        log.write("try", file_id, PARTS + 1)
        store.store_segment(message(**fields, **claim(data, f"hundred/{file_id}")))
        log.write("ack", file_id, PARTS + 1)


def _send(store: FileStoreManager, log: Log, file_id: str, number: int) -> None:
    """A segment; where its predecessor is with another worker still, it is sent again."""
    sent = message(_part(file_id, number), file_id=file_id, segment_number=str(number))
    while not log.ended:
        log.write("try", file_id, number)
        answer = outcome(store.store_segment, sent)
        if not isinstance(answer, SequenceError):
            break
        assert answer.expected is not None
        assert answer.expected < number, f"{file_id}: {number} was taken by nobody"
        log.over.wait(0.005)
    if isinstance(answer, Exception):
        raise answer
    log.write("ack", file_id, number)


def a_hundred_at_once(folder: Path) -> None:
    storage, log = folder / "storage", Log(folder / "log")
    for job in (begin_hundred, go_on_with_hundred, finish_hundred):
        if job is finish_hundred:
            with FileStoreManager(storage) as store:
                open_now = {one.file_id: one.segments_received for one in store.transfers()}
            assert open_now == {f"h{number}": PARTS for number in range(HUNDRED)}
        with Fleet.forked(Plan(storage, log.path, job, SEED, threads=5), 4) as fleet:
            fleet.wait()
    assert len([line for line in log.lines() if line.kind == "ack"]) == HUNDRED * (PARTS + 1)
    files = visible(storage)
    assert len(files) == HUNDRED
    for number in range(HUNDRED):
        file_id = f"h{number}"
        expected = b"".join(_part(file_id, one) for one in range(1, PARTS + 1))
        assert files[f"hundred/{file_id}"] == expected


def test_a_hundred_transfers_at_once_each_segment_by_another_worker(tmp_path: Path) -> None:
    apart(a_hundred_at_once, tmp_path)


# --- one transfer in turn ------------------------------------------------------------------------


@at_each_level
def test_one_transfer_goes_from_worker_to_worker_of_every_level(
    tmp_path: Path, level: Level
) -> None:
    """Every ordered pair of workers hands it over at least once."""
    others = [Worker(tmp_path, durability=one) for one in LEVELS]
    takers: list[Worker | FileStoreManager]
    data = random.Random(SEED).randbytes(41 * 700)
    parts = [data[at : at + 700] for at in range(0, len(data), 700)]
    with FileStoreManager(tmp_path, durability=level) as store:
        takers = [store, *others]
        turns = [taker for one in takers for other in takers for taker in (one, other)]
        turns += takers + turns[: len(parts) - len(turns) - len(takers)]
        for number, (part, taker) in enumerate(zip(parts, turns, strict=True), 1):
            sent = message(part, file_id="turns", segment_number=str(number))
            if number == len(parts):
                sent.other_fields.update(claim(data, "turns"))
            answers = [taker.store_segment(sent), turns[-number].store_segment(sent)]
            assert [answer.segments_received for answer in answers] == [number] * 2
        assert visible(tmp_path)["turns"] == data
    for worker in others:
        worker.close()


@at_each_level
def test_threads_of_one_manager_take_the_segments_of_one_transfer(
    tmp_path: Path, level: Level
) -> None:
    """All of them send all of it; each segment is taken once."""
    parts = [bytes([number]) * 900 for number in range(30)]
    data = b"".join(parts)

    def send_all(store: FileStoreManager) -> None:
        number = 1
        while number <= len(parts):
            sent = message(parts[number - 1], file_id="threads", segment_number=str(number))
            if number == len(parts):
                sent.other_fields.update(claim(data, "threads"))
            answer = outcome(store.store_segment, sent)
            if isinstance(answer, SequenceError):
                refused.append(answer)
                # A refusal of what was there before is behind; of what is published, the end.
                number = answer.expected or 1
                if number == 1:
                    return
            elif isinstance(answer, Exception):
                errors.append(answer)
                return
            else:
                number = answer.segments_received + 1

    refused: list[SequenceError] = []
    errors: list[Exception] = []
    with FileStoreManager(tmp_path, durability=level) as store:
        threads = [threading.Thread(target=send_all, args=(store,)) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert not errors
        assert visible(tmp_path)["threads"] == data
