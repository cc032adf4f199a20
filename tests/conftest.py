"""Tests work in memory; what the crash tests looked at is told at the end of a run, added up over
all its processes; the folder of a storage, which need not be there yet, and what opens stores over
it; and which promise a failed test is about."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from counted import COUNTED
from support import FULL, OpenStore, opened_cluster_stores, opened_stores, use_memory

if TYPE_CHECKING:
    from cluster_servers import Cluster


#: Over what a test's stores are opened.
FOLDERS, SERVERS = "folders", "servers"
#: One of so many values is tried over servers, and the first one.
SOME = 5


def pytest_configure() -> None:
    use_memory()
    # The command's tests say all of its options; a developer may have some set.
    for name in ("TXSTORE_STORAGE_DIR", "TXSTORE_WORKING_DIR", "TXSTORE_CONFIG"):
        os.environ.pop(name, None)
    os.environ["TXSTORE_CONFIG_FILE"] = os.devnull


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    over_servers = getattr(request, "param", FOLDERS) == SERVERS
    stores = opened_cluster_stores() if over_servers else opened_stores(tmp_path / "storage")
    with stores as open_store:
        yield open_store


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker
    if marked("every_engine") and not marked("two_folders") and "manager" in metafunc.fixturenames:
        metafunc.parametrize("manager", [FOLDERS, SERVERS], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over servers, which are slower, each test runs with some of its values, unless everything is
    done at full size; at one level, since what a request gets is the same at each."""
    if FULL:
        return
    begun, left = set[str](), set[pytest.Item]()
    for item in items:
        values = getattr(item, "callspec", None)
        if values is None or values.params.get("manager") != SERVERS:
            continue
        function = item.nodeid.partition("[")[0]
        if values.params.get("level", "segment") != "segment" or (
            function in begun and crc32(item.nodeid.encode()) % SOME
        ):
            left.add(item)
        begun.add(function)
    config.hook.pytest_deselected(items=[*left])
    items[:] = [one for one in items if one not in left]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """An empty place in an object store, and an empty database."""
    from cluster_servers import fresh_cluster  # slow to import, and most tests do without

    with fresh_cluster() as found:
        yield found


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the boot-time clock of this process says."""
    now = [1000.0]
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: now[0])
    return now


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Say which promise a failed test found broken: that is how a mutant is seen to die."""
    report = yield
    marker = item.get_closest_marker("promise")
    if report.failed and marker is not None:
        report.sections.append(("what is broken", f"promise {marker.args[0]}: {item.name}"))
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, counted in report.user_properties:
                    if name == COUNTED:
                        total.update(counted)
    if total:
        terminalreporter.section("what the crash tests looked at")
        for name, count in sorted(total.items()):
            terminalreporter.write_line(f"{count:9d} {name}")
