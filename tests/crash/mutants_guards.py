"""Mutants of what guards a manager against its surroundings: forks that nobody tells of, closed
descriptors, handlers that raise, and full disks under what SQLite maps into memory."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_STRANGE = ("tests/processes/test_strange_processes.py",)
_CUT_OFF = ("tests/processes/test_cut_off.py",)
_REPLACED = ("tests/local/test_replaced.py",)
_DISKS = ("tests/local/test_disks_of_their_own.py",)

GUARDS = [
    Mutant(
        "look at the process id at each call",
        (Patch("here", "pid = os.getpid()", "pid = Known.process.pid"),),
        _STRANGE,
    ),
    Mutant(
        "in a child, all that was inherited is forgotten",
        (Patch("_in_child", "one.disown()", "pass"),),
        _STRANGE,
    ),
    Mutant(
        "an inherited connection is closed, powerless, before another is opened",
        (Patch("put_away", "handles.close_powerless(connection)", "pass"),),
        _STRANGE,
    ),
    Mutant(
        "a descriptor's file is looked at before it is closed by its number",
        (Patch("close_ours", "leads_to(disk, fd, inode)", "True"),),
        _STRANGE,
    ),
    Mutant(
        "numbers that other threads may be using are left alone",
        (Patch("put_away", "taken and threading.active_count() > 1", "False"),),
        _STRANGE,
    ),
    Mutant(
        "look at the descriptors at each call",
        (Patch("LocalEngine.is_usable", "not one.has_descriptors()", "False"),),
        _STRANGE,
    ),
    Mutant(
        "a call that was cut off lets go of its locks",
        (Patch("Locks.let_go", "lock.let_go()", "pass"),),
        _CUT_OFF,
    ),
    Mutant(
        "nothing goes on after an exception of a signal handler",
        (Patch("pass_on", "is_strike(error)", "False"),),
        _CUT_OFF,
    ),
    Mutant(
        "what a call was cut off in is not used again",
        (Patch("FileStoreManager._failed", "engine.spoilt = True", "pass"),),
        _CUT_OFF,
        survives="cut off at every 29th bytecode nothing is seen: what a call keeps is noted last;"
        " it keeps that from becoming a rule for every line",
    ),
    Mutant(
        "the outer layer of a call that was cut off",
        (Patch("FileStoreManager._run", "is_strike(error)", "False"),),
        _CUT_OFF,
        survives="needs a second exception, raised while the first is handled; no test raises it",
    ),
    Mutant(
        "zeros in all of the index's blocks",
        (Patch("Index._fill", "self._disk.pwrite(fd, bytes(size - done), done)", "size"),),
        _DISKS,
    ),
    Mutant(
        "the kernel makes room for copies of the mapped index, and makes none",
        (
            Patch("Index.touch", "self._disk.touch_memory(address, size)", "pass"),
            Patch("Index.touch", "self._want_room()", "pass"),
            Patch("Index._fill", "self._disk.overwrite_in_place(fd)", "pass"),
        ),
        _DISKS,
    ),
    Mutant(
        "the journal's names are looked at",
        (
            Patch(
                "Journal._check_in_place",
                "self._disk.names_version(files.folder) != files.version",
                "False",
            ),
        ),
        _REPLACED,
    ),
    Mutant(
        "the staging file's name is looked at",
        (Patch("StagedFile.is_in_place", "return same", "return True"),),
        _REPLACED,
    ),
    Mutant(
        "what changed a moment before is looked at again",
        (Patch("settled", "blur < time.time_ns() - changed", "True"),),
        ("tests/unit/test_settled.py",),
    ),
]
