"""``StoreInspector``: looks at a store, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from txstore.backups import SERVERS_BACKUPS, Backup, Tell
from txstore.checks import Finding, Verified
from txstore.cluster.addresses import is_cluster
from txstore.cluster.servers import Servers
from txstore.engine import Inspector
from txstore.errors import BackupRefusedError, MissingExtraError
from txstore.local.files.disk import Disk
from txstore.local.looking.inspector import LocalInspector
from txstore.options import seconds
from txstore.protocol.catalogue import CatalogueEntry, Reached
from txstore.protocol.status import Totals

#: Entries of the catalogue that are read at once.
_PAGE = 1000


class StoreInspector:
    """A store that is looked at: nothing is made, written, settled or upgraded.  So it works on a
    read-only mount, and for a user who may only read.

    Workers may be running meanwhile, and are not held up.  Holds nothing open between calls; may be
    used by any thread, on both sides of a fork.

    :param storage_dir: folder under which files are stored
    :param working_dir: folder of the journal; the default is ``<storage_dir>/.workdir``
    :param lock_timeout: seconds that a worker who is busy with something is waited for
    :param disk: the operating system's calls; tests pass their own
    :ivar storage_dir: absolute path of the storage dir, or its URL
    :ivar working_dir: absolute path of the working dir, or its URL without a password
    :raises FileNotFoundError: there is no store
    """

    def __init__(
        self,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        lock_timeout: float = 30.0,
        disk: Disk | Servers | None = None,
    ) -> None:
        timeout = seconds("lock_timeout", lock_timeout)
        engine: Inspector
        if working_dir is not None and is_cluster(storage_dir, working_dir):
            engine = _cluster(disk, storage_dir, working_dir, timeout)
        else:
            calls = disk if isinstance(disk, Disk) else Disk()
            engine = LocalInspector(calls, storage_dir, working_dir, timeout)
        self._engine = engine
        self.storage_dir, self.working_dir = engine.storage_dir, engine.working_dir

    def totals(self) -> Totals:
        """What the store has in all: unfinished transfers, events not seen, room on the disk.

        :raises JournalDamagedError: SQLite cannot read the journal
        :raises JournalVersionError: a newer txstore wrote the journal
        :raises JournalError: the journal cannot be read without writing
        :raises LockTimeoutError: others were busy with the store for longer than ``lock_timeout``
        """
        return self._engine.totals()

    def check(self, *, deep: bool = False) -> Iterator[Finding]:
        """Look whether everything is right.  What workers do meanwhile makes no finding.

        :param deep: read all bytes, and compare them with what was received; otherwise only those
            are read of which nothing else tells
        :return: what is wrong, as it is found
        :raises JournalVersionError: a newer txstore wrote the journal
        :raises JournalError: the journal cannot be read without writing
        :raises OSError: the disk failed, or something may not be read
        """
        return self._engine.check(deep=deep)

    def catalogue(self, after: str = "") -> Iterator[CatalogueEntry]:
        """As ``FileStoreManager.catalogue``."""
        here: str | None = after
        while here is not None:
            entries, here = self._engine.catalogue(here, _PAGE)
            yield from entries

    def verify(
        self,
        names: Iterable[str] | None = None,
        *,
        after: str = "",
        reached: Reached = lambda _: None,
    ) -> Iterator[Verified]:
        """Read stored files, and compare them with the catalogue.  What is replaced meanwhile is
        read anew, and makes no finding.

        :param names: of files; ``None``: all that are in the catalogue, in its order
        :param after: ``key`` of the entry after which to begin; who was stopped goes on so
        :param reached: called with the bytes of each piece that was read.  It may take its time,
            and may raise: then reading ends with that
        :return: each file, when it was read: ``name``, ``entry`` of the catalogue, and what was
            ``found`` wrong, if anything was
        :raises NameRefusedError: nothing is stored under a name (a ``ValueError``)
        :raises OSError: the disk failed
        """
        if names is None:
            yield from self._engine.verify(after, reached)
            return
        for name in names:
            yield self._engine.verify_named(name, reached)

    def backup(
        self,
        destination: str | os.PathLike[str],
        *,
        links: bool = True,
        tell: Tell | None = None,
    ) -> Backup:
        """Copy the store beside running workers: what was acknowledged before this began is in the
        copy, and what came since may be.

        The copy is a store of its own: a storage dir with its working dir in it.  Under its name it
        is never there but whole: a new one is made beside that, one of this store that is there
        already is brought up to date.  Durable when this returns.

        Who may not read all of the store gets a backup that says what it has not
        (``Backup.left_out``).

        :param destination: the copy's storage dir: nothing, an empty folder, or an earlier backup
            of this store which nobody has opened for work
        :param links: whether stored files that are on the same file system get a second name
            instead of being copied
        :param tell: is told of all that comes, many times a second
        :raises BackupRefusedError: there is something else, or the store is kept by servers
        :raises JournalDamagedError: SQLite cannot read the journal
        :raises JournalVersionError: a newer txstore wrote the journal
        :raises JournalError: the journal cannot be read without writing
        :raises OSError: a disk failed, or is full; what is there already is as it was, and the same
            call goes on from what it has
        """
        path = os.path.abspath(os.fsdecode(destination))
        if not isinstance(self._engine, LocalInspector):
            raise BackupRefusedError(path, SERVERS_BACKUPS)
        return self._engine.back_up(path, links=links, tell=tell or (lambda _: None))


def _cluster(
    disk: Disk | Servers | None,
    storage_dir: str | os.PathLike[str],
    working_dir: str | os.PathLike[str],
    timeout: float,
) -> Inspector:
    try:
        from txstore.cluster.looking import ClusterInspector
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", "A store over PostgreSQL and an object store") from error
    servers = disk if isinstance(disk, Servers) else None
    return ClusterInspector(servers, storage_dir, working_dir, timeout)
