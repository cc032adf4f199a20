"""Folders for thousands of short-lived stores."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Where Linux keeps files in memory: there a flush costs nothing.
_MEMORY = "/dev/shm"
#: Bytes that have to be free there; containers often have 64 MiB in all.
_ENOUGH = 32 * 1024 * 1024


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder, in memory where that is possible; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="txstore-", dir=_memory()))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _memory() -> str | None:
    """The folder in memory; ``None``, which means the usual place, where there is none."""
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return _MEMORY if free >= _ENOUGH and os.access(_MEMORY, os.W_OK | os.X_OK) else None
