"""What a store tells of its work; and that nothing of it changes what the store does."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crew import cancel, last, segment
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support import OpenStore, at_each_level, published, send, transfer_messages

from txstore.disk import Disk
from txstore.dxl.exposing import facts
from txstore.errors import FileMismatchError, SequenceError
from txstore.metrics import Step
from txstore.metrics.gathering import Fact, Gathering
from txstore.metrics.prometheus import PrometheusMetrics
from txstore.options import Level
from txstore.process import threads
from txstore.testing import FaultyDisk

DATA = bytes(range(256)) * 4
ROOT = Path(__file__).parents[2]


class Heard:
    """Takes down what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int]] = []
        self.errors: list[type[BaseException]] = []
        self.steps: Counter[Step] = Counter()

    def answered(self, outcome: str, size: int, seconds: float) -> None:
        assert seconds > 0
        self.answers.append((outcome, size))

    def failed(self, error: BaseException, seconds: float) -> None:
        assert seconds > 0
        self.errors.append(type(error))

    def took(self, step: Step, seconds: float) -> None:
        assert seconds >= 0
        self.steps[step] += 1


def samples(text: str) -> dict[str, float]:
    """By name and labels, as Prometheus reads them."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_message_is_told_once_by_what_became_of_it(manager: OpenStore) -> None:
    heard = Heard()
    store = manager(metrics=heard)
    send(store, transfer_messages(DATA, 400))
    store.store_segment(segment("dropped", 1, DATA))
    store.store_segment(cancel("dropped"))
    assert heard.answers == [
        *[("segment", 400), ("segment", 400), ("store", 224)],
        *[("segment", 1024), ("cancel", 0)],
    ]
    for wrong in (segment("unknown", 2, DATA), last("wrong", 1, DATA, "wrong", b"other")):
        with pytest.raises((SequenceError, FileMismatchError)):
            store.store_segment(wrong)
    assert heard.errors == [SequenceError, FileMismatchError]
    assert len(heard.answers) == 5


@at_each_level
def test_steps_are_told_and_a_flush_only_where_there_is_one(
    manager: OpenStore, level: Level
) -> None:
    heard = Heard()
    store = manager(level, metrics=heard)
    store.store_segment(segment("file", 1, DATA))
    heard.steps.clear()
    store.store_segment(segment("file", 2, DATA))
    assert heard.steps["write"] >= 1
    assert heard.steps["journal"] >= 1
    assert heard.steps["flush"] == (2 if level == "segment" else 0)
    assert heard.steps["lock"] == 0, "nobody else has a lock"


class Holding(Disk):
    """Keeps whoever flushes in the middle of it, with the locks that it has.

    :ivar holds: set when somebody is kept
    :ivar waits: set when somebody else waits, and has looked several times whether it is free
    """

    def __init__(self) -> None:
        self.armed, self.looks = False, 0
        self.holds, self.waits, self.go = threading.Event(), threading.Event(), threading.Event()

    def flush(self, fd: int) -> None:
        if self.armed:
            self.armed = False
            self.holds.set()
            assert self.go.wait(60)
        super().flush(fd)

    def pause(self, seconds: float) -> None:
        self.looks += 1
        if self.looks >= 3:
            self.waits.set()
        super().pause(seconds)


@pytest.mark.parametrize("who", ["thread", "manager"])
def test_a_wait_for_somebody_who_has_the_lock_is_told(
    manager: OpenStore, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    heard, disk = Heard(), Holding()
    store = manager("segment", metrics=heard, disk=disk)
    holder = store if who == "thread" else manager("segment", disk=disk)
    acquire = threads.acquire

    def seen(lock: Any, timeout: float) -> bool:
        disk.waits.set()
        return acquire(lock, timeout)

    monkeypatch.setattr(threads, "acquire", seen)
    disk.armed = True
    calls = [
        threading.Thread(target=one.store_segment, args=(segment("file", 1, DATA),))
        for one in (holder, store)
    ]
    calls[0].start()
    assert disk.holds.wait(60)
    disk.waits.clear()
    disk.looks = 0
    calls[1].start()
    assert disk.waits.wait(60)
    assert heard.steps["lock"] == 0, "it is one wait, however often it looks"
    disk.go.set()
    for call in calls:
        call.join(60)
    assert heard.steps["lock"] >= 1


@pytest.mark.promise(1)
def test_metrics_that_fail_change_no_answer(
    manager: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: object) -> None:
                raise RuntimeError(f"{name} failed")

            return fail

    store = manager("segment", metrics=Failing())
    answer = send(store, transfer_messages(DATA, 400))
    assert answer.to_dict()["result"] == "store"
    assert published(store) == {"file.bin": DATA}
    with pytest.raises(SequenceError):
        store.store_segment(segment("unknown", 2, DATA))
    for text in ("answered failed", "failed failed", "took failed"):
        assert text in caplog.text


# --- Prometheus ----------------------------------------------------------------------------------


def test_prometheus_reads_what_was_counted(manager: OpenStore) -> None:
    registry = CollectorRegistry()
    disk = FaultyDisk()
    metrics = PrometheusMetrics(registry)
    store = manager("segment", metrics=metrics, disk=disk)
    send(store, transfer_messages(DATA, 400))
    store.store_segment(segment("open", 1, DATA))
    with pytest.raises(SequenceError):
        store.store_segment(segment("unknown", 2, DATA))
    disk.faults.fail("flush", error=5)
    with pytest.raises(OSError, match=r"."):
        store.store_segment(segment("open", 2, DATA))
    store.events("index").close()
    metrics.show(store.totals())
    found = samples(generate_latest(registry).decode())
    expected = {
        "txstore_requests_total segment": 3,
        "txstore_requests_total store": 1,
        "txstore_requests_total cancel": 0,
        "txstore_requests_total refused": 1,
        "txstore_requests_total failed": 1,
        "txstore_errors_total SequenceError": 1,
        "txstore_errors_total EIO": 1,
        "txstore_received_bytes_total": 2 * len(DATA),
        "txstore_request_duration_seconds_count": 6,
        "txstore_transfers": 1,
        "txstore_unfinished_bytes": len(DATA),
        "txstore_events_behind": 0,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["txstore_oldest_transfer_age_seconds"] >= 0
    assert found["txstore_disk_free_bytes"] > 0
    assert found["txstore_step_duration_seconds_count flush"] > 0


def test_totals_are_of_all_transfers_and_consumers(manager: OpenStore) -> None:
    store = manager()
    assert store.totals().transfers == store.totals().oldest_age == 0
    for number in range(3):
        store.store_segment(segment(f"open-{number}", 1, DATA))
    with store.events("seen") as feed:
        assert next(feed, None) is None
    store.store_segment(last("stored", 1, DATA, "stored", DATA))
    totals = store.totals()
    assert (totals.transfers, totals.bytes, totals.events_behind) == (3, 3 * len(DATA), 1)
    assert totals.oldest_age >= 0
    [event] = store.events("seen")
    event.done()
    assert store.totals().events_behind == 0


_COUNT = """
import os, signal, sys
from txstore.metrics.gathering import count_in
metrics = count_in(sys.argv[1], int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    metrics.answered("segment", 10, 0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def gathering() -> Iterator[Gathering]:
    gathering = Gathering(2, lambda: [Fact("txstore_worker_restarts_total", "Restarts", 7)])
    yield gathering
    gathering.close()
    assert not Path(gathering.folder).exists()


def collected(gathering: Gathering) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(gathering)
    return samples(generate_latest(registry).decode())


def test_what_killed_workers_counted_is_added_up(gathering: Gathering) -> None:
    def worker(number: int, messages: int) -> None:
        command = [sys.executable, "-c", _COUNT, gathering.folder, str(number), str(messages)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    worker(1, 3)
    worker(2, 4)
    files = set(Path(gathering.folder).iterdir())
    worker(1, 5)
    found = collected(gathering)
    assert found["txstore_requests_total segment"] == 3 + 4 + 5
    assert found["txstore_received_bytes_total"] == 120
    assert found["txstore_request_duration_seconds_count"] == 12
    assert found["txstore_worker_restarts_total"] == 7
    assert set(Path(gathering.folder).iterdir()) == files, "nothing piles up"


@pytest.mark.promise(6)
def test_no_page_of_what_workers_count_in_is_without_its_place(gathering: Gathering) -> None:
    """On a full file system the kernel would kill the worker that changes it."""
    for path in Path(gathering.folder).iterdir():
        found = path.stat()
        assert found.st_blocks * 512 >= found.st_size >= 1 << 16


def test_there_is_room_for_all_that_may_be_counted(gathering: Gathering) -> None:
    """A file that grew would have pages without a place."""
    code = _COUNT.replace(
        "os.kill",
        "[metrics.failed(type('E' * 40 + str(n), (Exception,), {})(), 1)"
        " for n in range(120)]\nos.kill",
    )
    command = [sys.executable, "-c", code, gathering.folder, "1", "1"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert collected(gathering)[f"txstore_errors_total {'E' * 40}119"] == 1
    assert {path.stat().st_size for path in Path(gathering.folder).iterdir()} == {1 << 16}


# --- names and their table -----------------------------------------------------------------------

UNITS = ("_seconds", "_bytes", "_total", "_info", "_transfers", "_workers", "_behind")


def families() -> list[Metric]:
    """All metrics that there are."""

    class Quiet:
        serving = restarts = 0

    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    supervised = [fact.family() for fact in facts(Quiet(), "/nowhere")]  # type: ignore[arg-type]
    certificate = Fact("txstore_certificate_expiry_timestamp_seconds", "", 0).family()
    return [*registry.collect(), *supervised, certificate]


def test_names_are_as_prometheus_wants_them() -> None:
    for family in families():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert re.fullmatch(r"txstore(_[a-z]+)+", name)
        assert name.endswith(UNITS), name
        assert family.type != "histogram" or name.endswith("_seconds")


def test_every_metric_is_in_the_table_of_the_document() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(txstore_\w+)", text, re.MULTILINE))
    assert described == {
        family.name + ("_total" if family.type == "counter" else "") for family in families()
    }
