"""A transfer that is being worked on does not expire: answered repeats, and clocks that differ."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from crew import cut, forked, segment
from seam import StoppingDisk
from support import at_each_level

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.options import Level

DATA = bytes(range(256)) * 4
HOUR, DAY = 3600.0, 86400.0


@at_each_level
def test_each_answered_repeat_is_activity(tmp_path: Path, ticks: list[float], level: Level) -> None:
    with FileStoreManager(tmp_path, durability=level, expire_after=DAY) as store:
        store.store_segment(segment("one", 1, DATA))
        for share in (0.05, 0.1, 0.01):
            ticks[0] += DAY * share
            assert store.store_segment(segment("one", 1, DATA)).segments_received == 1
            ticks[0] += DAY * 0.99
            assert store.expire() == [], "promise 9: an answered repeat is no activity"
        ticks[0] += DAY * 0.01
        assert store.expire() == ["one"]


@at_each_level
def test_repeat_counts_for_managers_that_drop_sooner(
    tmp_path: Path, ticks: list[float], level: Level
) -> None:
    with (
        FileStoreManager(tmp_path, durability=level, expire_after=30 * DAY) as store,
        FileStoreManager(tmp_path, durability=level, expire_after=HOUR) as other,
    ):
        store.store_segment(segment("one", 1, DATA))
        for _ in range(5):
            ticks[0] += HOUR / 2
            assert store.store_segment(segment("one", 1, DATA)).segments_received == 1
            assert other.expire() == []
        assert store.store_segment(segment("one", 2, DATA)).segments_received == 2


def test_age_is_looked_at_again_under_the_lock(tmp_path: Path, ticks: list[float]) -> None:
    disk = StoppingDisk()
    with (
        FileStoreManager(tmp_path, durability="none") as worker,
        FileStoreManager(tmp_path, durability="none", expire_after=HOUR, disk=disk) as keeper,
    ):
        worker.store_segment(segment("one", 1, DATA))
        ticks[0] += DAY
        with disk.stopped("try_lock", keeper.expire):
            worker.store_segment(segment("one", 1, DATA))
        assert worker.transfers() != [], "promise 9: a transfer in use expired"


class Namespaced(Disk):
    """A process in a time namespace, or in none."""

    def __init__(self, ahead: float | None) -> None:
        self.ahead = ahead

    def clock_ahead(self) -> float | None:
        return self.ahead


@pytest.mark.parametrize("ahead", [30 * DAY, -30 * DAY])
def test_worker_whose_clock_is_ahead_drops_nothing_early_and_nothing_late(
    tmp_path: Path, ticks: list[float], ahead: float
) -> None:
    ticks[0] += 100 * DAY
    with (
        FileStoreManager(tmp_path, durability="none") as here,
        FileStoreManager(tmp_path, durability="none", disk=Namespaced(ahead)) as there,
    ):
        here.store_segment(segment("one", 1, DATA))
        *_, end = messages = cut(DATA, 2, file_id="done", name="done")
        for message in messages:
            here.store_segment(message)
        ticks[0] += ahead
        assert there.expire() == [], "promise 9: a transfer in use expired by another's clock"
        assert there.store_segment(segment("two", 1, DATA)).segments_received == 1
        assert there.store_segment(end).file_result == "store"
        ticks[0] -= ahead
        assert here.expire() == []
        ticks[0] += 7 * DAY
        assert here.expire() == ["one", "two"]
        assert here.status("done") is None


def test_process_that_cannot_compare_its_clock_trusts_no_time_of_others(
    tmp_path: Path, ticks: list[float]
) -> None:
    with (
        FileStoreManager(tmp_path, durability="none") as here,
        FileStoreManager(tmp_path, durability="none", disk=Namespaced(None)) as there,
    ):
        here.store_segment(segment("one", 1, DATA))
        ticks[0] += 300 * DAY
        assert there.expire() == []  # not before it has known the store for an hour
        assert there.store_segment(segment("one", 2, DATA)).segments_received == 2
        ticks[0] -= 300 * DAY
        assert here.expire() == []
        assert here.store_segment(segment("one", 3, DATA)).segments_received == 3


def in_time_namespace(ahead: float, code: str, *args: str | Path) -> str:
    """Run Python in a time namespace whose clock is ahead; what it prints."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare command")
    unshare = ["unshare", "--user", "--map-root-user", "--time", "--boottime", str(int(ahead))]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no time namespace: {tried.stderr.strip()}")
    command = [*unshare, sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    return done.stdout


def test_real_time_namespace_drops_nothing_that_is_in_use(tmp_path: Path) -> None:
    ahead = 30 * DAY
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, DATA))
        code = """
            import sys, time
            from txstore import FileStoreManager
            with FileStoreManager(sys.argv[1], durability="none") as store:
                print(store.expire(), time.clock_gettime(time.CLOCK_BOOTTIME) > float(sys.argv[2]))
                store.store_segment(type("Message", (), {
                    "payload": b"x",
                    "other_fields": {"file_id": "two", "segment_number": "1"},
                }))
        """
        shown = in_time_namespace(ahead, code, tmp_path, str(ahead))
        assert shown.strip() == "[] True"
        assert store.expire() == []
        assert store.store_segment(segment("one", 2, DATA)).segments_received == 2
    with FileStoreManager(tmp_path, durability="none", expire_after=0) as store:
        assert store.expire() == ["one", "two"]


def test_namespace_of_children_alone_is_not_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only made one, for its children, is in none itself."""
    links = {"time": "time:[4026531834]", "time_for_children": "time:[4026532999]"}
    monkeypatch.setattr(os, "readlink", lambda path: links[os.path.basename(path)])
    assert Disk().clock_ahead() == 0.0
    links["time"] = "time:[4026532000]"
    assert Disk().clock_ahead() is None


def test_forked_child_compares_its_clock_anew(tmp_path: Path) -> None:
    """Its parent may have made a time namespace for its children."""
    disk: Any = Namespaced(0.0)

    def child(store: FileStoreManager) -> None:
        real = time.clock_gettime
        time.clock_gettime = lambda clock: real(clock) + 30 * DAY
        assert store.expire() == []

    with FileStoreManager(tmp_path, durability="none", disk=disk) as store:
        store.store_segment(segment("one", 1, DATA))
        disk.ahead = 30 * DAY  # what it finds in the child
        forked(child, store)
