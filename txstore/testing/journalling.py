"""What SQLite did to the journal's files, taken down as operations on a ``Platter``.

See ``SimulatedDisk`` for the order in which SQLite writes and flushes.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable

from txstore.testing import operations as ops
from txstore.testing.identities import Identities
from txstore.testing.sqlite import copy_of, differences


class JournalRecorder(Identities):
    """The part of a simulated disk that watches the journal's files."""

    #: Whether SQLite's flush of the folder of a WAL that it made succeeds.  It says nothing where
    #: it does not.
    sqlite_flushes_folder = True

    log: list[ops.Operation]
    _did: Callable[[ops.Operation], None]

    def _knows_wal(self, path: str) -> bool:
        folder = self.platter.folder(self._key_at(os.path.dirname(path)))
        return os.path.basename(path) + "-wal" in folder.names

    def _sqlite_wrote(self, path: str, level: int, *, settled: bool, complete: bool = True) -> None:
        """Compare the journal's files with what is recorded.

        :param level: of ``PRAGMA synchronous``
        :param settled: after a checkpoint or a close: the database may have changed
        :param complete: whether the checkpoint got to the WAL's end: else SQLite does not flush
        """
        if not self._record:
            return
        folder = self._key_at(os.path.dirname(path))
        name = os.path.basename(path)
        wal = self.platter.folder(folder).names.get(name + "-wal")
        if settled:
            content = copy_of(path)
            key = self.platter.folder(folder).names[name]
            database = self.platter.regular(key)
            writes = list(differences(bytes(database.data), content or b"", 4096))
            if level and wal is not None and (writes or (complete and database.pending)):
                self._did(ops.Flush(wal))
            for write in writes:
                self._did(ops.Write(key, *write))
            if level and complete and (writes or database.pending):
                self._did(ops.Flush(key))
            self._changed[key] = os.stat(path).st_mtime_ns
        self._wal_wrote(folder, name + "-wal", path + "-wal", level)

    def _wal_wrote(self, folder: int, name: str, path: str, level: int) -> None:
        known = self.platter.folder(folder).names.get(name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            if known is not None:
                self._did(ops.Remove(folder, name))
            return
        identity = found.st_dev, found.st_ino
        key = self._keys.get(identity)
        if key is None or key != known:
            key = self._keys[identity] = self._new_key()
            mode = modes.S_IMODE(found.st_mode)
            self._did(ops.Create(folder, name, key, self._free_number(), mode, "wal"))
        file = self.platter.regular(key)
        with open(path, "rb") as stream:
            content = stream.read()
        before = len(self.log)
        if content[:32] != bytes(file.data[:32]):
            self._did(ops.Write(key, 0, content[:32]))
            if level:
                self._did(ops.Flush(key))
                self._did(ops.FlushFolder(folder, failed=not self.sqlite_flushes_folder))
        for write in differences(bytes(file.data), content, None):
            self._did(ops.Write(key, *write))
        if len(content) < len(file.data):
            self._did(ops.Cut(key, len(content)))
        if level >= 2 and len(self.log) > before:
            self._did(ops.Flush(key))
