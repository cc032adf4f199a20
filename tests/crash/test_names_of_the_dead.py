"""Who makes a store may die before the flush of its names; whoever answers next flushes them.

At every operation of making a store its maker is killed; another worker opens what is there and
acknowledges a segment; then the power goes.
"""

from __future__ import annotations

import os
import random

from crash.search import Run, Search, record, states
from crash.steps import Crash, Open, Send, Session
from crash.workloads import BY_NAME, B
from crash.world import Clock, Folders, fixed
from txstore.testing import operations as ops
from txstore.testing.disk import SimulatedDisk
from txstore.testing.powerloss import Platter

FULL = bool(os.environ.get("TXSTORE_FULL"))


def test_an_acked_segment_outlives_the_maker_of_its_folders_and_the_power() -> None:
    run, folders, base = Run(BY_NAME["brief"], "segment"), Folders(), Platter()
    search = Search(run, folders)
    try:
        for position, op in enumerate(record(run, folders)):
            if isinstance(op, ops.Note) and op.what:
                break
            base.apply(op)
            left, tree, clock = base.copy(), base.kernel(), Clock()
            with folders.one() as root, fixed(f"names {position}", clock):
                disk = SimulatedDisk(root, left.copy(), tree.build(root), boot="boot-0")
                session = Session(root, disk, clock, run.level, (Crash(False),), None)
                session.do(Open())
                session.do(Send(B, 1))
                session.close()
            acked = max(at for at, op in enumerate(disk.log, 1) if isinstance(op, ops.Note))
            label = f"names of the dead, maker killed after operation {position}"
            found = list(
                states(disk.log, left, (Crash(False),), label, randoms=2, crashes=2, only={acked})
            )
            few = found if FULL else random.Random(label).sample(found, min(5, len(found)))
            for state in few:
                search.check(state)
    finally:
        folders.close()
