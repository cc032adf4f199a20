"""A file that comes in one segment: there is nothing to go back to, and so mostly nothing to record
before it is published.

``docs/design.md`` lists the state after a crash between any two steps.
"""

from __future__ import annotations

import errno
import os

from txstore.local.clock import Call
from txstore.local.files.flushed import FlushedFolders
from txstore.local.files.home import Home
from txstore.local.files.places import Parents, Place, place_bytes
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import PRIVATE, Staging
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Completion, Transfer
from txstore.local.publish import Publisher
from txstore.local.transfers import Transfers
from txstore.options import Durability
from txstore.protocol.request import FileClaim, SegmentRequest


class WholeFiles:
    """Publishes such files for one manager.  Thread-safe.

    The caller holds the name lock of the place, and has settled what it found there.

    :param replaces: whether files are replaced.  Then a repeat whose record was lost stores the
        same file again.  Else it would be refused because of that very file: so an intent is
        recorded first, that of a transfer without a segment
    """

    def __init__(
        self,
        home: Home,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        folders: FlushedFolders,
        publisher: Publisher,
        durability: Durability,
        *,
        replaces: bool,
    ) -> None:
        self._home, self._staging, self._records = home, staging, records
        self._transfers, self._folders, self._publisher = transfers, folders, publisher
        self._keeps = durability.keeps_files
        self._replaces = replaces

    def publish(self, request: SegmentRequest, claim: FileClaim, place: Place, call: Call) -> None:
        """Publish a file that came in one segment.  On return it is durable, as the level says; its
        completion is flushed only where somebody follows the events, or nothing is replaced.

        :raises NameRefusedError: nothing may be stored there; nothing was changed
        """
        publish = self._at_once if self._replaces else self._by_intent
        with self._publisher.opened(place, claim.name, request.given_id) as parents:
            try:
                staged = self._staging.create(request.file_id, PRIVATE)
                publish(staged, request, claim, place, parents, call)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                staged = self._staging.create_there(request.file_id, parents.folder)
                with self._publisher.last_try(claim.name, request.given_id):
                    publish(staged, request, claim, place, parents, call)

    def _at_once(
        self,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        place: Place,
        parents: Parents,
        call: Call,
    ) -> None:
        try:
            staged.write(0, request.payload)
            self._publisher.make_ordinary(staged, request, parents)
            if self._keeps:
                staged.flush_all()
                self._folders.flush_parents(parents)
            found = self._home.disk.fstat(staged.fd)
            self._publisher.rename(staged.name, place, parents, claim.name, request.given_id)
        except BaseException:
            self._staging.remove(staged.name)
            raise
        finally:
            staged.close()
        if self._keeps:
            self._home.flush_folder(parents.folder)
        row = Transfer.unbegun(request.file_id, staged.name, staged.inode, call.at).intending(
            os.fsencode(claim.path), place_bytes(place), claim.size, claim.sha256, claim.sha256
        )
        done = Completion.of(row, found, call.at, durable=self._keeps)
        self._records.complete(done, None, request.sender, call)
        if self._keeps and self._records.has_consumers(call):
            # A power loss would take the event of a file that is there and was answered.
            self._records.flush(call)

    def _by_intent(
        self,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        place: Place,
        parents: Parents,
        call: Call,
    ) -> None:
        row = Transfer.unbegun(request.file_id, staged.name, staged.inode, call.at)
        try:
            intent = self._publisher.stage_last(row, staged, request, claim, place, parents, call)
        except BaseException:
            self._staging.remove(staged.name)
            raise
        finally:
            staged.close()
        self._transfers.begin(intent, None, call)
        self._publisher.carry_out(intent, place, parents, call)
