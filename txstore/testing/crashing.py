"""A store whose process dies on command, and whose successor goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from txstore.store import FileStoreManager
from txstore.testing.faults import FaultPlan
from txstore.testing.faulty import FaultyDisk

S = TypeVar("S")


@dataclass(frozen=True)
class Setup:
    """What a store is to be opened with.

    :ivar storage_dir: its storage dir; the working dir is to be the default one
    :ivar disk: to be passed on as ``disk=``, where faults and crashes are to reach the store
    """

    storage_dir: Path
    disk: FaultyDisk


def open_plain(setup: Setup) -> FileStoreManager:
    """A store at the level for tests, which skips the flushes that only a power loss needs."""
    return FileStoreManager(setup.storage_dir, durability="none", disk=setup.disk)


class CrashingStore(Generic[S]):
    """One worker after another over the same folders, each of which can die on command::

        crashing.faults.crash("rename")
        with pytest.raises(SimulatedCrash):
            crashing.store.store_segment(message)
        crashing.restart()
        crashing.store.store_segment(message)

    A crash takes from a store's process what SIGKILL would: locks, descriptors and connections.
    What it wrote, stays.

    :param storage_dir: where the files are stored
    :param open_store: opens a store
    :ivar store: the store of the worker that lives now
    """

    def __init__(self, storage_dir: Path, open_store: Callable[[Setup], S]) -> None:
        self._storage_dir, self._open_store = storage_dir, open_store
        self._setup = Setup(storage_dir, FaultyDisk())
        self.store = open_store(self._setup)

    @property
    def storage_dir(self) -> Path:
        """Where the files are stored."""
        return self._storage_dir

    @property
    def disk(self) -> FaultyDisk:
        """The disk of the worker that lives now."""
        return self._setup.disk

    @property
    def faults(self) -> FaultPlan:
        """What is to go wrong with the worker that lives now."""
        return self._setup.disk.faults

    @property
    def dead(self) -> bool:
        """Whether a crash has struck the worker."""
        return self._setup.disk.dead

    def restart(self, faults: FaultPlan | None = None) -> S:
        """Let the worker die, where it is still alive, and start another.

        :param faults: what is to go wrong with the new one, while it opens already
        :raises SimulatedCrash: the new one died, as planned, while it opened: restart again
        """
        self._setup.disk.bury()
        self._setup = Setup(self._storage_dir, FaultyDisk(faults))
        try:
            self.store = self._open_store(self._setup)
        except BaseException:
            self._setup.disk.bury()
            raise
        return self.store

    def close(self) -> None:
        """Close the store in order, where it is alive and can be closed."""
        self.faults.clear()
        close: Any = getattr(self.store, "close", None)
        if close is not None and not self.dead:
            close()
        self._setup.disk.bury()

    def __enter__(self) -> CrashingStore[S]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
