"""Unfinished transfers, row and bytes together: a change recorded, an end made.

Whoever calls holds the transfer's lock, or, where its row has an intent, the name lock.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from txstore.errors import (
    JournalError,
    LimitError,
    LockTimeoutError,
    StagingDamagedError,
    TakenOverError,
)
from txstore.local.clock import Call
from txstore.local.files.home import Home
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import Staging
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Event, Transfer
from txstore.options import Durability
from txstore.process.strikes import ignored
from txstore.protocol.admission import Quota

_CHUNK = 1024 * 1024  # bytes copied at once


class Transfers:
    """Changes and ends transfers for one manager.  Thread-safe."""

    def __init__(
        self, home: Home, staging: Staging, records: Records, durability: Durability
    ) -> None:
        self._home, self._staging, self._records = home, staging, records
        self._keeps = durability.keeps_files

    def begin(self, row: Transfer, quota: Quota | None, call: Call) -> None:
        """Record a new one.  Where it surely was not recorded, its bytes are taken away.

        :raises LimitError: the quota has no place for it; nothing was recorded
        """
        try:
            while not self._records.insert(row, call, quota):
                assert quota is not None
                self._check_quota(quota, call)
        except LimitError:
            self._staging.remove(row.staging)
            raise
        except (JournalError, LockTimeoutError) as error:
            # Whether it was recorded is not known, unless the disk was full or a lock not had;
            # where it was not, the file is swept as an orphan.
            if error.errno in (errno.ENOSPC, errno.ETIMEDOUT):
                self._staging.remove(row.staging)
            raise

    def save(self, old: Transfer, new: Transfer, call: Call) -> Transfer:
        """Record a change; the new row.

        :raises TakenOverError: another worker has changed it meanwhile
        """
        if not self._records.save(old, new, call):
            raise self.taken_over(old)
        return new

    def find_out(self, row: Transfer, quota: Quota | None, call: Call) -> None:
        """After a next segment was not recorded: where nothing is in its way now, try again.

        :raises TakenOverError: another worker has changed the row meanwhile
        :raises LimitError: the quota has no place for it
        """
        current = self._records.by_staging(row.staging, call)
        if quota is None or current is None or current.change != row.change:
            raise self.taken_over(row)
        self._check_quota(quota, call)

    def _check_quota(self, quota: Quota, call: Call) -> None:
        """After a quota had no place: where it has by now, all is to be tried again."""
        refusal = quota.refusal(self._records.usage(quota, call))
        if refusal is not None:
            raise refusal

    def flush(self, row: Transfer, flush: Callable[[], None], call: Call) -> None:
        """Flush staged bytes, and put the row in doubt where that fails.

        :param flush: which one, of the transfer's staging file
        """
        try:
            flush()
        except OSError:
            self.doubt(row, call)
            raise

    def doubt(self, row: Transfer, call: Call) -> None:
        """After a flush of staged bytes failed: put the row in doubt.

        A later flush would succeed without them.  So whoever goes on with a row in doubt, at
        whatever level, writes anew what was recorded and is not durable, and flushes it.
        """
        if not row.durable:
            with ignored:
                self._records.save(row, row.put_in_doubt(call.at), call)

    def go_on_with_copy(
        self, row: Transfer, staged: StagedFile, copy: StagedFile, call: Call
    ) -> Transfer:
        """Go on with a copy of the staged bytes, in a new, empty file that is ours alone.

        A crash in between leaves one of the two files without a row: an orphan.  Both are closed
        where it fails; the first one also where it does not.
        """
        recorded = False
        try:
            hasher = copy.hasher_new()
            while hasher.total < row.offset:
                part = staged.read(hasher.total, min(_CHUNK, row.offset - hasher.total))
                if not part:
                    raise StagingDamagedError(
                        staged.path, row.file_id, "is shorter than the journal says"
                    )
                copy.write(hasher.total, part)
                hasher.update(part)
            if row.durable_segments:
                copy.flush()
                self._staging.flush_folder(copy.name)
            recorded = True  # or perhaps
            taken = row.touched(call.at)._replace(staging=copy.name, inode=copy.inode)
            self.save(row, taken, call)
            if row.durable_segments:
                # A journal that went back would look for the file that is removed now.
                self._records.flush(call)
        except BaseException:
            copy.close()
            if not recorded:
                self._staging.remove(copy.name)  # its space is needed, where the disk is full
            raise
        finally:
            staged.close()
        copy.row, copy.setbacks = taken, taken.setbacks
        self._staging.remove(row.staging)
        return taken

    def drop(self, row: Transfer, call: Call, event: Event | None = None) -> bool:
        """End a transfer: first its row, then its bytes, so that no row is without them.

        :param event: that tells of it, where it is to be told
        :return: ``False`` where another worker changed it meanwhile: then nothing was done
        """
        if not self._records.delete(row, call, event):
            return False
        self.discard([row.staging], call)
        return True

    def discard(self, stagings: list[str], call: Call) -> None:
        """Take away the bytes of transfers whose rows were deleted, once that is durable."""
        if self._keeps:
            self._records.flush(call)
        for name in stagings:
            self._staging.discard(name)

    def taken_over(self, row: Transfer) -> TakenOverError:
        """The error for a row that was changed by somebody who does not see our lock."""
        return TakenOverError(self._home.staging_path(row.staging), row.file_id)
