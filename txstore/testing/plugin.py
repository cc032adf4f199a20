"""pytest fixtures: stores that are fresh, that crash on command, whose disk fails.

pytest loads this in every run where txstore is installed, so nothing is imported before a fixture
is used.  In a Hypothesis test, where fixtures outlive examples, use ``txstore_fresh``, or what
the other fixtures are made of: ``crashing_store()`` and ``FaultyDisk()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from txstore.store import FileStoreManager
    from txstore.testing.crashing import CrashingStore
    from txstore.testing.faulty import FaultyDisk


@pytest.fixture(scope="session")
def txstore_fresh() -> Callable[..., AbstractContextManager[FileStoreManager]]:
    """Makes fresh stores, a few milliseconds each: ``with txstore_fresh() as store: ...``.

    Options are those of ``FileStoreManager``; the level is ``"none"`` unless one is given.
    """
    from txstore.testing.fresh import fresh_store

    return fresh_store


@pytest.fixture
def txstore_store() -> Iterator[FileStoreManager]:
    """A fresh store for one test."""
    from txstore.testing.fresh import fresh_store

    with fresh_store() as store:
        yield store


@pytest.fixture
def txstore_disk() -> Iterator[FaultyDisk]:
    """A disk to open a store with.

    Its ``faults`` say what goes wrong::

        store = FileStoreManager(tmp_path, disk=txstore_disk)
        txstore_disk.faults.fail("flush", errno.EIO, nth=2)
    """
    from txstore.testing.faulty import FaultyDisk

    disk = FaultyDisk()
    yield disk
    disk.bury()


@pytest.fixture
def txstore_crashing() -> Iterator[CrashingStore[FileStoreManager]]:
    """A store that crashes on command, and starts again: see ``CrashingStore``."""
    from txstore.testing.fresh import crashing_store

    with crashing_store() as crashing:
        yield crashing
