"""The bytes of unfinished transfers, copied while workers go on with them.

Up to the offset of a row its bytes stay what they are, as long as the transfer lives and does not
go back.  So they are copied without a lock, and compared with the hash that the row has.  A
transfer that ended meanwhile, or went back, or whose bytes were moved to another file, does not
fit: a newer look at the journal tells what became of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from txstore import digest
from txstore.backups import Backup, LeftOut, Tell
from txstore.errors import NameRefusedError
from txstore.local.backup.copying import Copier
from txstore.local.backup.destination import Destination
from txstore.local.backup.journal import JournalCopy, Row
from txstore.local.files.places import place_of
from txstore.local.files.staging import new_name
from txstore.local.looking.look import Look

#: Looks at the journal until all transfers of the first one are settled.  The second nearly always
#: does: it has those only that did not end or move since, and it takes a moment.
_MOST_LOOKS = 5


class StagedCopies:
    """Copies transfers to a backup.  For one thread.

    :param like: the journal's file: who may use that may use these
    """

    def __init__(
        self,
        look: Look,
        destination: Destination,
        copier: Copier,
        backup: Backup,
        tell: Tell,
        like: os.stat_result,
    ) -> None:
        self._look, self._disk, self._found = look, look.disk, look.found
        self._destination, self._copier, self._like = destination, copier, like
        self._backup, self._tell = backup, tell
        #: Rows as they are to be in the backup, by the names of their staging files in the store.
        self._copied: dict[str, Row] = {}
        self._shut: set[str] = set()

    def copy(self, journal: JournalCopy) -> list[Row]:
        """Copy the journal, and the bytes of its transfers.

        :return: the transfers as they are to be in the backup: each as it was when its bytes were
            copied, which is after the backup began, and without an intent: who sent its last
            message was not answered then
        """
        owed: set[tuple[str, float]] | None = None
        for _ in range(_MOST_LOOKS):
            journal.take(self._look.reader, self._look.deadline())
            # Without a segment there is nothing that was acknowledged.
            rows = [row for row in journal.rows() if row["segments"] > 0]
            if owed is None:
                owed = {_key(row) for row in rows}
            failed = [row for row in rows if not self._is_copied(row)]
            # What was begun meanwhile need not be in it.
            failed = [row for row in failed if _key(row) in owed]
            if not failed:
                break
        for row in failed:
            self._backup.left_out.append(LeftOut(f"transfer {row['file_id']!r}", self._why(row)))
        kept = [self._copied[row["staging"]] | {"id": row["id"]} for row in rows if self._has(row)]
        self._backup.transfers = len(kept)
        return kept

    def _has(self, row: Row) -> bool:
        return row["staging"] in self._copied

    def _why(self, row: Row) -> str:
        if row["staging"] in self._shut:
            return "its bytes may not be read"
        return "its bytes are not what the journal says: look with `txstore check`"

    def _is_copied(self, row: Row) -> bool:
        if self._has(row):
            return True
        for fd in self._sources(row):
            try:
                copied = self._copy(row, fd)
            finally:
                self._disk.close(fd)
            if copied is not None:
                self._copied[row["staging"]] = copied
                return True
        return False

    def _sources(self, row: Row) -> Iterator[int]:
        """Descriptors of the files that may have a transfer's bytes; to be closed."""
        try:
            yield self._disk.open(self._found.staging_path(row["staging"]), write=False)
        except PermissionError:
            self._shut.add(row["staging"])
        except (FileNotFoundError, NotADirectoryError):
            pass  # renamed, or gone
        if row["publish_place"] is None:
            return
        # Who renames it may have died, or has not recorded it yet.
        place = place_of(row["publish_place"])
        with suppress(FileNotFoundError, NotADirectoryError, NameRefusedError, PermissionError):
            with self._look.places.look(place) as parents:
                fd = self._disk.open(place[-1], dir_fd=parents.folder, write=False)
            if self._disk.fstat(fd).st_ino == row["inode"]:
                yield fd
            else:
                self._disk.close(fd)

    def _copy(self, row: Row, source: int) -> Row | None:
        """The row of a copy whose bytes are what was recorded, which are flushed."""
        name = new_name("w", row["file_id"])
        offset, state = row["offset"], row["state"]
        # Without OpenSSL a row has the hash of fewer bytes than were received, or none.
        known = min(digest.total(state) or 0, offset)
        hasher = digest.new()
        fd = self._disk.create(name, 0o600, dir_fd=self._destination.staging)
        try:
            self._disk.give(fd, self._like)
            fits = (
                self._copier.copy_bytes(source, fd, known, hasher)
                and hasher.digest() == digest.digest_of(state, known)
                and self._copier.copy_bytes(source, fd, offset, hasher)
            )
            if fits:
                self._disk.flush(fd)
                inode = self._disk.fstat(fd).st_ino
        finally:
            self._disk.close(fd)
        if not fits:
            self._disk.unlink(name, dir_fd=self._destination.staging)
            return None
        self._tell(self._backup)
        without_intent = {column: None for column in row if column.startswith("publish_")}
        return {
            **row,
            **without_intent,
            "staging": name,
            "inode": inode,
            "state": hasher.save() or state,
        }


def _key(row: Row) -> tuple[str, float]:
    """Which transfer it is, wherever its bytes are."""
    return row["file_id"], row["created_at"]
