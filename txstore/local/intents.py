"""Intents to publish that a dead or failed worker left: carried out, or withdrawn.

An intent is a transfer's row that says where its file was about to be published.  Whoever takes
up that transfer, or wants that place, settles it first; safe to interrupt at any point.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, ExitStack, suppress

from txstore import digest
from txstore.errors import (
    JournalError,
    LockTimeoutError,
    NameRefusedError,
    NameTakenError,
    ReplacedError,
    StagingDamagedError,
)
from txstore.local.clock import Call
from txstore.local.files.home import Home
from txstore.local.files.places import Parents, Place, place_bytes, place_of
from txstore.local.files.staging import Staging
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Transfer
from txstore.local.locks import Locks
from txstore.local.publish import Publisher
from txstore.local.transfers import Transfers
from txstore.options import Durability
from txstore.process.strikes import pass_on

logger = logging.getLogger(__name__)


class Intents:
    """Settles intents for one manager.  Thread-safe."""

    def __init__(
        self,
        home: Home,
        locks: Locks,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        publisher: Publisher,
        durability: Durability,
        *,
        replaces: bool,
    ) -> None:
        self._home, self._locks, self._staging = home, locks, staging
        self._records, self._transfers, self._publisher = records, transfers, publisher
        self._keeps, self._replaces = durability.keeps_files, replaces

    def settle(self, row: Transfer, call: Call) -> None:
        """Carry out an intent that was left, or withdraw it where that cannot be.

        Needs no lock of the transfer: rows with an intent are changed under the name lock alone.
        """
        assert row.publish_place is not None
        with self._locks.name(row.publish_place).held(call):
            current = self._records.by_staging(row.staging, call)
            if current is not None and current.publish_place == row.publish_place:
                self._settle_held(current, call)

    def settle_place(self, place: Place, call: Call) -> None:
        """Settle every intent for a place whose name lock is held: who left it is dead or failed,
        and must not come over the newer file later."""
        for row in self._records.by_place(place_bytes(place), call):
            self._settle_held(row, call)

    def withdraw_unless_renamed(self, row: Transfer, call: Call) -> None:
        """Settle an intent that its sender does not want any more: it is carried to its end only
        if the file was renamed already."""
        assert row.publish_place is not None
        with self._locks.name(row.publish_place).held(call):
            current = self._records.by_staging(row.staging, call)
            if current is None or current.publish_place != row.publish_place:
                return
            if not self._complete_if_renamed(current, call):
                self._publisher.withdraw(current, call)

    def _complete_if_renamed(self, row: Transfer, call: Call) -> bool:
        """Makes no folder: there may be no space, and nobody wants them."""
        place = place_of(row.publish_place or b"")
        with ExitStack() as held:
            try:
                parents = held.enter_context(self._publisher.look(row))
                found = self._publisher.renamed(row, place, parents)
            except (NameRefusedError, FileNotFoundError):
                return False  # no such folder (any more), so it was not renamed into it
            except PermissionError:
                if self._staging.has(row.staging):
                    return False  # nobody may look there (any more), and its bytes are here
                raise
            if found is None:
                return False
            self._complete(row, place, parents, found, call)
            return True

    def _complete(
        self,
        row: Transfer,
        place: Place,
        parents: Parents,
        found: os.stat_result,
        call: Call,
    ) -> None:
        if self._is_trusted(row) or self._publisher.is_whole(row, place, parents):
            self._publisher.complete(row, place, parents, found, call)
        else:
            # Level "none": its sender is told to begin again, and replaces it.
            self._transfers.drop(row, call)
            logger.warning("The file of transfer %r is damaged: a power loss", row.file_id)

    def _opened(self, row: Transfer, place: Place) -> AbstractContextManager[Parents]:
        return self._publisher.opened(place, os.fsdecode(row.publish_path or b""), row.file_id)

    def _settle_held(self, row: Transfer, call: Call) -> None:
        if self._complete_if_renamed(row, call):
            return
        assert row.publish_place is not None
        place = place_of(row.publish_place)
        try:
            with self._opened(row, place) as parents:
                if self._publisher.standing(place, parents) != row.publish_over:
                    # A power loss can bring an intent back whose withdrawal was not flushed, after
                    # a file in one segment, which flushes no journal, was acknowledged there.
                    raise NameRefusedError(
                        os.fsdecode(row.publish_path or b""),
                        "another file was stored there since",
                        file_id=row.file_id,
                    )
                if not self._replaces and row.publish_over is not None:
                    raise NameTakenError(os.fsdecode(row.publish_path or b""), file_id=row.file_id)
                fit = self._make_fit(row, call)
                self._publisher.carry_out(fit, place, parents, call)
        except (JournalError, LockTimeoutError, ReplacedError):
            raise
        except (NameRefusedError, OSError) as error:
            pass_on(error)
            current = self._records.by_staging(row.staging, call)
            if current is None or current.publish_place is None:
                return  # withdrawn already
            if self._complete_if_renamed(current, call):
                return
            logger.warning("Transfer %r cannot be published: %s", row.file_id, error)
            self._publisher.withdraw(current, call)

    def _is_trusted(self, row: Transfer) -> bool:
        """Whether nothing can have touched the bytes of an intent."""
        return bool(row.publish_flushed) or self._home.is_this_boot(row.written_boot)

    def _make_fit(self, row: Transfer, call: Call) -> Transfer:
        """Verify the bytes of an intent where something can have touched them, and flush them
        where this level asks for it and nobody did.

        :raises StagingDamagedError: they are not what was to be published
        """
        size = row.publish_size or 0
        to_flush = self._keeps and not row.publish_flushed
        staged = self._staging.open(row._replace(offset=size))
        modified = self._home.disk.fstat(staged.fd).st_mtime_ns
        try:
            if to_flush or not self._is_trusted(row) or staged.inode != row.inode:
                hasher = digest.new()
                # As in `make_own`: it is others' bytes that are flushed here.
                rewrite_from = row.durable_offset if to_flush else None
                whole = staged.hash_to(hasher, size, rewrite_from=rewrite_from)
                if not whole or hasher.digest() != row.publish_sha256:
                    raise StagingDamagedError(staged.path, row.file_id, "lost bytes in a crash")
            if staged.size > size:
                staged.write(size, b"")  # a power loss can undo a cut that was not flushed
            if to_flush:
                with suppress(PermissionError):  # another user's
                    self._home.disk.set_modified(staged.fd, modified)  # it was set on purpose
                self._transfers.flush(row, staged.flush_all, call)
                fit = row.touched(call.at)._replace(publish_flushed=1)
                self._transfers.save(row, fit, call)
                row = fit
        finally:
            staged.close()
        return row
