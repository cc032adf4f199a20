"""Workers are killed with SIGKILL, at calls of the seam and at any time; nothing acked is lost."""

from __future__ import annotations

import os

import pytest

from crash.kills import Kills, is_sound
from crash.search import LEVELS
from crash.world import Folders

FULL = bool(os.environ.get("TXSTORE_FULL"))
KILLS = 400 if FULL else 40


@pytest.mark.parametrize("level", LEVELS)
def test_others_go_on_where_killed_workers_stopped(level: str, pytestconfig: pytest.Config) -> None:
    folders = Folders()
    try:
        with folders.one() as root:
            storage = os.path.join(root, "storage")
            kills = Kills(storage, level, seed=f"kills at {level}")
            kills.run(KILLS)
            assert is_sound(os.path.join(storage, ".workdir", "journal.db"))
    finally:
        folders.close()
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        stored = len(kills.done)
        reporter.write_line(f"\n{kills.kills} kills at level {level}, {stored} files stored")
