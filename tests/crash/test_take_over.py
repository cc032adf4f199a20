"""Who publishes what another user staged copies it first: a power loss meanwhile takes nothing."""

from __future__ import annotations

import os
from typing import Any

from crash.scenes import check_crashes, run_of, scene
from crash.steps import Open, Send, upload
from txstore.testing.disk import SimulatedDisk

GROUP = upload("group", "group.bin", 1500, 700, 800)
SOMEBODY = 12345


class Shared(SimulatedDisk):
    """Files that were there when ``hand_over`` was called are somebody else's."""

    theirs: frozenset[int] = frozenset()

    def hand_over(self) -> None:
        nodes = self.platter.nodes
        self.theirs = frozenset(key for key, node in nodes.items() if node.role == "file")

    def _seen(self, found: os.stat_result) -> os.stat_result:
        seen = super()._seen(found)
        if self._keys.get((found.st_dev, found.st_ino)) not in self.theirs:
            return seen
        parts: Any = seen.__reduce__()
        fields, more = parts[1]
        return os.stat_result((*fields[:4], SOMEBODY, *fields[5:]), more)


def test_a_power_loss_while_a_transfer_is_taken_over_takes_no_segment() -> None:
    run = run_of("group", "segment", GROUP)
    with scene(run.name, disk_type=Shared) as (session, disk):
        assert isinstance(disk, Shared)
        session.do(Open())
        session.do(Send(GROUP, 1))
        session.do(Send(GROUP, 2))
        disk.hand_over()
        first = len(disk.log)
        session.restart(0)
        session.do(Send(GROUP, 3))
    check_crashes(run, disk.log, range(first, len(disk.log)))
