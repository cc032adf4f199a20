"""A disk whose calls are made as a fault plan wants it: what all disks that fail have in common."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from txstore.testing.faults import Fault, FaultPlan, SimulatedCrash, raise_fault
from txstore.testing.seam import Seam
from txstore.testing.sqlite import kind_of

T = TypeVar("T")

#: Facts of the machine, which no plan is asked about.
FACTS = frozenset(["boot_id", "clock_ahead", "file_system", "umask", "inode_behind"])


class FailingDisk(Seam):
    """Asks a plan before and after each call.

    :param faults: what goes wrong; by default nothing yet
    :ivar dead: whether a crash has struck: then no call does anything but raise ``SimulatedCrash``
    """

    def __init__(self, faults: FaultPlan | None = None) -> None:
        self.faults = FaultPlan() if faults is None else faults
        self.dead = False
        self._mutex = threading.RLock()

    def made(
        self, call: str, act: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]
    ) -> T:
        if call == "sql":
            _, sql = args
            kind = kind_of(sql)
            if kind == "close":
                return act(*args)
            named = kind if kind in ("commit", "checkpoint") else "statement"
            return self.asked(named, sql, lambda _short: act(*args))
        if call in FACTS:
            return act(*args, **options)
        # Paths cost more than most calls: they are made only for whom they matter.
        path = _path(args, options) if self.faults.looks else ""
        return self.asked(
            call, path, lambda short: act(*(_halved(*args) if short else args), **options)
        )

    def asked(self, call: str, path: str, act: Callable[[bool], T]) -> T:
        """Carry a call out, unless the plan is against it.

        :param act: carries it out; told whether a write is to be a short one
        """
        if self.dead:
            raise SimulatedCrash(f"{call} {path}")
        with self._mutex:
            struck = self.faults.struck(call, path)
        for fault in struck:
            if not fault.after:
                self._strike(fault, call, path)
        done = act(any(fault.short for fault in struck))
        for fault in struck:
            if fault.after:
                self._strike(fault, call, path)
        return done

    def _strike(self, fault: Fault, call: str, path: str) -> None:
        self.dead = self.dead or fault.error is None
        raise_fault(fault, call, path)


def _halved(fd: int, data: bytes | memoryview, offset: int) -> tuple[Any, ...]:
    return fd, data[: (len(data) + 1) // 2], offset


def _path(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """What a call is about, as absolute paths; a rename is about two."""
    if not args:
        return ""
    if isinstance(args[0], int):
        return _path_of(args[0])
    folders = [options[name] for name in ("source_dir", "target_dir") if name in options]
    folders = folders or [options.get("dir_fd")] * 2
    names = [name for name in args[:2] if isinstance(name, str)]
    pairs = zip(names, folders, strict=False)
    return " ".join(os.path.join(_path_of(folder), name) for name, folder in pairs)


def _path_of(fd: int | None) -> str:
    if fd is None:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # no /proc here, or the descriptor is closed: then rules have no path to go by
