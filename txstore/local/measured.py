"""A disk that tells how long its calls take, SQLite's included; for managers with ``metrics``."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from txstore.local.files.disk import Disk
from txstore.metrics import Metrics, Step, Timed

T = TypeVar("T")

_STEPS: dict[str, Step] = {
    "pwrite": "write",
    "flush": "flush",
    "flush_all": "flush",
    "flush_folder": "flush",
    "flush_file_system": "flush",
}


class MeasuredDisk(Disk):
    """Makes each call through another disk."""

    def __init__(self, disk: Disk, metrics: Metrics) -> None:
        self._disk = disk
        for name, _ in inspect.getmembers(Disk, inspect.isfunction):
            if not name.startswith("_") and name != "connect":
                call = getattr(disk, name)
                timed = name in _STEPS
                setattr(self, name, _timed(metrics, _STEPS[name], call) if timed else call)
        base = disk.sqlite_connection
        execute = _timed(metrics, "journal", base.execute)
        self.sqlite_connection = type("Measured", (base,), {"execute": execute})

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        return self._disk.connect(path, factory=self.sqlite_connection, **options)


def _timed(metrics: Metrics, step: Step, call: Callable[..., T]) -> Callable[..., T]:
    def timed(*args: Any, **options: Any) -> T:
        with Timed(metrics, step):
            return call(*args, **options)

    return timed
