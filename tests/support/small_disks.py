"""File systems of a few MiB, to be filled to their last byte, after ``support.get_own_mounts``."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from support import mount

BIG = bytes(range(256)) * 2048  # half a MiB; more than what a full disk's last page has room for
SMALL = b"small"


def small_disk(folder: Path, *, options: str = "size=4m") -> Path:
    folder.mkdir()
    mount("-t", "tmpfs", "-o", options, "none", folder)
    return folder


def fill(folder: Path) -> Path:
    """Leave not one byte on a folder's file system; the file that takes them."""
    hog = folder / "hog"
    fd = os.open(hog, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    try:
        for size in (1 << 18, 1 << 12, 1):
            with suppress(OSError):
                while os.write(fd, bytes(size)):
                    pass
    finally:
        os.close(fd)
    return hog


def here(function: Callable[..., None], *args: object) -> None:
    function(*args)
