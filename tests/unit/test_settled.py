"""Promise 7 rests on a folder's time of change: it tells of a change only where the next one gets
another time."""

from __future__ import annotations

import time

import pytest

from txstore.local.files.disk import UNKNOWN, Version, settled

pytestmark = pytest.mark.promise(7)

SECOND = 1_000_000_000


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    now = 1_700_000_000 * SECOND + 5
    monkeypatch.setattr(time, "time_ns", lambda: now)
    return now


@pytest.mark.parametrize("ago", [0, 1, 49_000_000])
def test_a_folder_that_changed_a_tick_before_is_not_relied_on(now: int, ago: int) -> None:
    assert settled((1, 2, now - ago)) == UNKNOWN


def test_where_times_are_whole_seconds_two_of_them_have_to_pass(now: int) -> None:
    assert settled((1, 2, now - 5 - SECOND)) == UNKNOWN
    older: Version = (1, 2, now - 5 - 3 * SECOND)
    assert settled(older) == older


def test_a_folder_that_changed_long_before_is_relied_on(now: int) -> None:
    version: Version = (1, 2, now - 51_000_000)
    assert settled(version) == version


def test_of_a_folder_that_is_gone_nothing_is_known() -> None:
    assert settled(None) == UNKNOWN
