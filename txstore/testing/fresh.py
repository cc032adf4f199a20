"""Stores that live for one test, or for one of its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from txstore.store import FileStoreManager
from txstore.testing.crashing import CrashingStore, Setup, open_plain
from txstore.testing.scratch import scratch_folder


@contextmanager
def fresh_store(**options: Any) -> Iterator[FileStoreManager]:
    """An empty store in a folder of its own, in memory where that is possible.

    :param options: of ``FileStoreManager``; the level is ``"none"`` unless one is given
    """
    with (
        scratch_folder() as folder,
        FileStoreManager(folder, **{"durability": "none", **options}) as store,
    ):
        yield store


@contextmanager
def crashing_store(
    open_store: Callable[[Setup], FileStoreManager] = open_plain,
) -> Iterator[CrashingStore[FileStoreManager]]:
    """An empty store that crashes on command.

    :param open_store: opens it, or a subclass; by default at level ``"none"``
    """
    with scratch_folder() as folder, CrashingStore(folder, open_store) as crashing:
        yield crashing
