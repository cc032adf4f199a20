"""The simulated disk sees every call that there is, and sees it as it is."""

from __future__ import annotations

import inspect
import os

import pytest

from crash.search import Run, record
from crash.steps import Session
from crash.workloads import ALL_SORTS, BY_NAME
from crash.world import Clock, Folders, fixed
from txstore.disk import Disk
from txstore.options import Level
from txstore.testing.disk import SimulatedDisk
from txstore.testing.recording import RecordingDisk
from txstore.testing.seam import Seam

#: Calls of which nothing is recorded: they change nothing that a crash could leave in a store.
UNRECORDED = {
    # Of a backup, outside of the store that it is made of.
    *("clone", "copy_attributes", "link_to", "make_link"),
    *("boot_id", "clock_ahead", "file_system", "umask", "pause", "lack_of_space", "space"),
    "free_inodes",
    *("pread", "size", "read_link", "new_file", "acl", "default_acl", "start_flush"),
    # Groups, access control lists and times are no part of a state.
    *("set_group", "set_acl", "set_modified", "flush_file_system"),
    # Locks, and the tokens of the living.
    *("try_lock", "try_lock_byte", "unlock", "last_holder", "sign", "lock_folder"),
    # SQLite's index is made anew after a crash.
    *("open_index", "give", "overwrite_in_place", "touch_file", "touch_memory", "mapped"),
    "shares_blocks",
    "connect",  # what it does is seen in each statement
}


def test_no_call_goes_past_it() -> None:
    calls = {name for name, _ in inspect.getmembers(Disk, inspect.isfunction) if name[0] != "_"}
    assert calls - set(vars(RecordingDisk)) == UNRECORDED
    assert calls <= set(vars(Seam))


@pytest.mark.parametrize("level", ["segment", "file", "none"])
def test_what_it_recorded_is_what_is_there(level: Level) -> None:
    folders, clock = Folders(), Clock()
    try:
        with folders.one() as root, fixed("as it is", clock):
            disk = SimulatedDisk(root)
            session = Session(root, disk, clock, level, (), None)
            for step in ALL_SORTS.steps:
                session.do(step)
            session.close()
            tree = disk.crashed()
            found: dict[str, bytes | None] = {}
            for top, folders_there, files in os.walk(root):
                for name in folders_there:
                    found[os.path.relpath(os.path.join(top, name), root)] = None
                for name in files:
                    path = os.path.join(top, name)
                    with open(path, "rb") as file:
                        data = file.read()
                    if os.path.basename(top) == "locks":  # random tokens
                        data = bytes(len(data))
                    found[os.path.relpath(path, root)] = data
        assert found == {path: tree.file(path) for path in tree.paths}
    finally:
        folders.close()


def test_the_same_run_does_the_same_again() -> None:
    folders = Folders()
    try:
        run = Run(BY_NAME["brief"], "segment")
        first, second = (
            [op for op in record(run, folders) if type(op).__name__ != "Write"] for _ in range(2)
        )
        assert first == second
    finally:
        folders.close()
