"""A store whose process dies on command, and whose successor goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union

from txstore.store import FileStoreManager
from txstore.testing.faults import FaultPlan
from txstore.testing.faulty import FaultyDisk

if TYPE_CHECKING:
    from txstore.testing.servers import FaultyServers

S = TypeVar("S")

#: Makes the disk of one worker, or its way to two servers.
NewDisk = Callable[[FaultPlan | None], Union[FaultyDisk, "FaultyServers"]]


@dataclass(frozen=True)
class Setup:
    """What a store is to be opened with.

    :ivar storage_dir: its storage dir; the working dir is to be the default one
    :ivar disk: to be passed on as ``disk=``, where faults and crashes are to reach the store: what
        the ``new_disk`` of its ``CrashingStore`` makes
    """

    storage_dir: Path
    disk: Any


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
    :param new_disk: makes each worker's disk; ``FaultyServers`` for a store over two servers
    :ivar store: the store of the worker that lives now
    """

    def __init__(
        self,
        storage_dir: Path,
        open_store: Callable[[Setup], S],
        new_disk: NewDisk = FaultyDisk,
    ) -> None:
        self._storage_dir, self._open_store, self._new_disk = storage_dir, open_store, new_disk
        self._setup = Setup(storage_dir, new_disk(None))
        self.store = open_store(self._setup)

    @property
    def storage_dir(self) -> Path:
        """Where the files are stored."""
        return self._storage_dir

    @property
    def disk(self) -> Any:
        """The disk of the worker that lives now."""
        return self._setup.disk

    @property
    def faults(self) -> FaultPlan:
        """What is to go wrong with the worker that lives now."""
        faults: FaultPlan = self._setup.disk.faults
        return faults

    @property
    def dead(self) -> bool:
        """Whether a crash has struck the worker."""
        dead: bool = self._setup.disk.dead
        return dead

    def restart(self, faults: FaultPlan | None = None) -> S:
        """Let the worker die, where it is still alive, and start another.

        :param faults: what is to go wrong with the new one, while it opens already
        :raises SimulatedCrash: the new one died, as planned, while it opened: restart again
        """
        self._setup.disk.bury()
        self._setup = Setup(self._storage_dir, self._new_disk(faults))
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

    def __exit__(self, *_: object) -> None:
        self.close()
