"""Workers are killed with SIGKILL, at calls of the seam and at any time; nothing acked is lost.

``python tests/crash kills`` kills more of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from counted import COUNTED

from crash.kills import kill_some
from crash.search import LEVELS
from txstore.options import Level

KILLS = 40


@pytest.mark.parametrize("level", LEVELS)
def test_others_go_on_where_killed_workers_stopped(
    level: Level, record_property: Callable[[str, object], None]
) -> None:
    killed, stored = kill_some(level, KILLS)
    record_property(COUNTED, {"workers killed": killed, "files stored by others": stored})
    assert killed >= KILLS
