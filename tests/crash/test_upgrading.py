"""A power loss at any operation of an upgrade of the journal, and of the first message after it."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from crew import last
from data import make_journal_0001 as first

from crash.oracle import broken
from crash.search import State, states
from crash.world import Clock, Folders, fixed
from txstore import FileStoreManager
from txstore.options import Level
from txstore.testing.disk import SimulatedDisk
from txstore.testing.powerloss import Platter

FULL = bool(os.environ.get("TXSTORE_FULL"))
KEPT = Path(first.__file__).parent / "journal-0001.db"
HALF = first.OPEN_DATA[: 2 * first.OPEN_SEGMENT]
REST = first.OPEN_DATA[2 * first.OPEN_SEGMENT :]
STORED = {"done": first.DONE_DATA, "open": first.OPEN_DATA, "folder/left": first.LEFT_DATA}
FINAL = last(first.OPEN, 3, REST, "open", first.OPEN_DATA)


def make(root: str) -> None:
    """A store of the first revision: a file stored, a transfer half there, an intent left."""
    storage = Path(root, "storage")
    working = storage / ".workdir"
    for name in ("staging", "locks"):
        (working / name).mkdir(parents=True)
    shutil.copy(KEPT, working / "journal.db")
    (working / "staging" / first.OPEN_STAGING).write_bytes(HALF + b"never recorded")
    (working / "staging" / first.LEFT_STAGING).write_bytes(first.LEFT_DATA)
    (storage / "done").write_bytes(first.DONE_DATA)


def check(state: State, folders: Folders) -> None:
    """:raises PromiseBrokenError: what was there before the upgrade is not there"""
    with folders.one() as root, fixed(state.label, Clock(1.8e9, 60.0)):
        disk = SimulatedDisk(
            root,
            Platter.of(state.tree),
            state.tree.build(root),
            boot="boot-1" if state.power else "boot-0",
            record=False,
        )
        storage = Path(root, "storage")
        try:
            with FileStoreManager(storage, disk=disk) as store:
                store.store_segment(FINAL)
        except (ValueError, OSError) as error:
            raise broken(1, f"{state.label}: it cannot be gone on with: {error}") from error
        for name, data in STORED.items():
            if (storage / name).read_bytes() != data:
                raise broken(2, f"{state.label}: {name!r} is not whole")


@pytest.mark.parametrize("level", ["segment", "none"])
def test_an_upgrade_that_is_cut_off_costs_nothing(level: Level) -> None:
    """What the older version promised holds, whoever goes on."""
    folders, picker = Folders(), random.Random("upgrade")
    try:
        with folders.one() as root, fixed("upgrade", Clock()):
            make(root)
            disk = SimulatedDisk(root, boot="boot-0")
            base = disk.platter.copy()
            storage = os.path.join(root, "storage")
            with FileStoreManager(storage, disk=disk, durability=level) as store:
                store.store_segment(FINAL)
        looked = 0
        for state in states(disk.log, base, (), "upgrade", randoms=3):
            if FULL or picker.random() < 0.1:
                check(state, folders)
                looked += 1
        assert looked > 20
    finally:
        folders.close()
