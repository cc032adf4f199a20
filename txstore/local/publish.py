"""From staged bytes to a file under its name: whole, at once, and durable.

A file of several segments is published in steps: bytes flushed, **intent** recorded and flushed,
renamed, folders flushed, **completion** recorded and flushed.  Each leaves a state that recovery
can go on from.  The **name lock** is held from before the intent until the intent is gone.  So
whoever holds it and finds an intent for that place has found that of a worker that died or failed,
and settles it first.  A one-segment file has nothing to go back to and needs no intent.

``docs/design.md`` lists the state after a crash between any two steps.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from txstore.errors import NameRefusedError
from txstore.local.clock import Call
from txstore.local.files.content import has_content
from txstore.local.files.flushed import FlushedFolders
from txstore.local.files.home import Home
from txstore.local.files.newfile import give, new_file_in
from txstore.local.files.places import Parents, Place, Places, place_bytes, place_of
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import Staging
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Completion, Transfer
from txstore.local.published import Published
from txstore.local.transfers import Transfers
from txstore.options import Durability
from txstore.process.strikes import pass_on
from txstore.protocol.request import FileClaim, SegmentRequest

#: What a rename that fails says of the name.
_REFUSED = {
    **dict.fromkeys((errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST), "a folder has that name"),
    errno.EBUSY: "it is a mount point",
    errno.ENAMETOOLONG: "it is too long",
}


class Publisher:
    """Publishes for one manager.  Thread-safe.

    The caller holds the name lock of the place, and has settled what it found there.
    """

    def __init__(
        self,
        home: Home,
        places: Places,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        folders: FlushedFolders,
        published: Published,
        durability: Durability,
    ) -> None:
        self._home, self._disk, self._places = home, home.disk, places
        self._folders, self._published = folders, published
        self._staging, self._records, self._transfers = staging, records, transfers
        self._keeps = durability.keeps_files

    def resolve(self, claim: FileClaim, file_id: str | None) -> Place:
        """Where a file of that name goes.

        :raises NameRefusedError: nowhere in the storage
        :raises ReplacedError: the storage dir was replaced
        """
        self._home.check_storage_in_place()
        return self._places.resolve(claim.path, name=claim.name, file_id=file_id)

    # --- a file of several segments ----------------------------------------------------------

    def finish(
        self,
        row: Transfer,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        place: Place,
        call: Call,
    ) -> None:
        """Stage the last segment and publish the file.  On return file and completion are durable,
        as the level says.  ``Recovery.make_own`` has seen to what is flushed here.

        :raises NameRefusedError: nothing may be stored there; the transfer is at its last segment
        :raises OSError: likewise, or the intent stays for recovery to settle
        """
        with self.opened(place, claim.name, request.given_id) as parents:
            try:
                self._finish(row, staged, request, claim, place, parents, call)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # A project quota, or a group that is not ours to give: copied into an inode that
                # is made there.  The intent, if it came to that, was withdrawn.
                current = self._records.by_staging(row.staging, call)
                if current is None:
                    raise
                copy = self._staging.create_there(row.file_id, parents.folder)
                row = self._transfers.go_on_with_copy(current, staged, copy, call)
                try:
                    with self.last_try(claim.name, request.given_id):
                        self._finish(row, copy, request, claim, place, parents, call)
                finally:
                    copy.close()
        staged.close()

    def _finish(
        self,
        row: Transfer,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        place: Place,
        parents: Parents,
        call: Call,
    ) -> None:
        intent = self.stage_last(row, staged, request, claim, place, parents, call)
        self._transfers.save(row, intent, call)
        self.carry_out(intent, place, parents, call)

    def stage_last(
        self,
        row: Transfer,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        place: Place,
        parents: Parents,
        call: Call,
    ) -> Transfer:
        """Complete the staged file, durably as the level says.

        :return: its row with the intent to publish it, which is to be recorded next
        """
        # Somebody was promised that these segments survive: the rename must not cost them.
        flushed = self._keeps or row.durable_segments > 0 or row.doubted > 0
        staged.write(row.offset, request.payload)
        staged.cut(claim.size)
        self.make_ordinary(staged, request, parents)
        if flushed:
            self._transfers.flush(row, staged.flush_all, call)
        last = hashlib.sha256(request.payload).digest()
        path = os.fsencode(claim.path), place_bytes(place)
        intent = row.touched(call.at).intending(*path, claim.size, claim.sha256, last)
        intent = intent._replace(
            publish_flushed=int(flushed),
            publish_over=self.standing(place, parents),
            publish_sender=request.sender,
        )
        self._staging.check_in_place(staged)
        return intent

    def carry_out(self, row: Transfer, place: Place, parents: Parents, call: Call) -> None:
        """From a recorded intent to a completion."""
        if self._keeps or row.publish_flushed:
            # Otherwise the folders may be gone after a power loss, with the only name of the file.
            self._folders.flush_parents(parents)
            # The rename takes the staging file away: a journal that lost the intent would have a
            # transfer without bytes, and acknowledged segments would be gone.
            self._records.flush(call)
        name = os.fsdecode(row.publish_path or b"")
        # Before the rename: whoever waits for files may take it away as soon as it is there.
        found = self._disk.stat(row.staging, dir_fd=self._staging.folder(row.staging))
        try:
            self.rename(row.staging, place, parents, name, row.file_id)
        except OSError:
            if self.renamed(row, place, parents) is None:
                self.withdraw(row, call)
            raise
        except NameRefusedError:
            self.withdraw(row, call)
            raise
        self.complete(row, place, parents, found, call)

    def complete(
        self,
        row: Transfer,
        place: Place,
        parents: Parents,
        found: os.stat_result,
        call: Call,
    ) -> None:
        """Make a renamed file durable and record that its transfer is over.

        :param found: what ``stat`` says of the file
        """
        if self._keeps and not row.publish_flushed:
            self._published.flush_file(
                place[-1], parents.folder, lambda: self._records.delete(row, call)
            )
        # Also at level "none", where somebody was promised that these segments survive.
        careful = self._keeps or row.publish_flushed
        if careful:
            self._folders.flush_parents(parents)
            self._home.flush_folder(parents.folder)
        # After a power loss in the rename both names may be there; the other one is durable now.
        self._staging.remove(row.staging)
        if careful:
            self._staging.flush_folder(row.staging)
        done = Completion.of(row, found, call.at, durable=bool(careful))
        if not self._records.complete(done, row, row.publish_sender, call):
            raise self._transfers.taken_over(row)
        if careful:
            # An intent that comes back would find no staging file, and, once another file is
            # stored under the name, no file of its own either.
            self._records.flush(call)

    def is_taken(self, place: Place) -> bool:
        """Whether anything stands at a place; no folder is made for that."""
        try:
            with self._places.look(place) as parents:
                return self.standing(place, parents) is not None
        except (FileNotFoundError, NameRefusedError):
            return False  # no such folder: what is wrong with it, publishing tells

    def standing(self, place: Place, parents: Parents) -> str | None:
        """What is at a place, as far as a replacement would show; ``None``: nothing.

        The inode's number alone would not do: it is used again as soon as a file is gone.
        """
        try:
            found = self._disk.stat(place[-1], dir_fd=parents.folder)
        except FileNotFoundError:
            return None
        return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"

    def is_whole(self, row: Transfer, place: Place, parents: Parents) -> bool:
        """Whether a renamed file has the intended content; reads it whole."""
        return has_content(self._disk, place[-1], parents.folder, row.publish_sha256)

    def withdraw(self, row: Transfer, call: Call) -> None:
        """Take an intent back: the transfer is at its last acknowledged segment again; without one
        it is over.

        Flushed where the intent was: it would come back in a power loss, and publish a file whose
        sender was told that it is refused.
        """
        if row.segments:
            self._transfers.save(row, row.without_intent().stamped(call.at), call)
        else:
            self._records.delete(row, call)
        if self._keeps or row.publish_flushed:
            self._records.flush(call)
        if not row.segments:
            self._staging.discard(row.staging)

    def renamed(self, row: Transfer, place: Place, parents: Parents) -> os.stat_result | None:
        """What ``stat`` says of the file at the place, if it is the one that was staged."""
        try:
            found = self._disk.stat(place[-1], dir_fd=parents.folder)
        except FileNotFoundError:
            return None
        if found.st_size != row.publish_size:
            return None
        if found.st_ino == row.inode:
            return found
        # Where neither name leads to the inode: in a restored backup files have others.
        restored = not self._staging.has(row.staging) and has_content(
            self._disk, place[-1], parents.folder, row.publish_sha256
        )
        return found if restored else None

    def look(self, row: Transfer) -> AbstractContextManager[Parents]:
        """The parents of the place that an intent wants, none of them made.

        :raises FileNotFoundError: one is missing
        """
        return self._places.look(place_of(row.publish_place or b""))

    # --- steps -------------------------------------------------------------------------------

    @contextmanager
    def opened(self, place: Place, name: str, file_id: str | None) -> Iterator[Parents]:
        """The parents of a place, made if missing, and known to be renamed into."""
        with self._places.open_parents(place, name=name, file_id=file_id) as parents:
            self._check_mount(parents, name, file_id)
            yield parents

    def check_early(self, request: SegmentRequest) -> None:
        """Before bytes are staged for a name: refuse it where nothing can ever be renamed to it.
        What else may stand in the way can be mended before the last message comes.

        :raises NameRefusedError: a mount point lies in between
        """
        path, name, file_id = request.path, request.name, request.given_id
        if path is None or name is None or os.sep not in path:
            return  # right below the storage dir, whose staging folder was picked for that
        with ExitStack() as opened:
            try:
                place = self._places.resolve(path, name=name, file_id=file_id)
                parents = opened.enter_context(
                    self._places.existing(place, name=name, file_id=file_id)
                )
            except (NameRefusedError, OSError) as error:
                pass_on(error)
                return
            self._check_mount(parents, name, file_id)

    def _check_mount(self, parents: Parents, name: str, file_id: str | None) -> None:
        if parents.nested and self._home.is_other_mount(self._staging.current, parents.folder):
            raise NameRefusedError(name, "a mount point lies in between", file_id=file_id)

    def make_ordinary(self, staged: StagedFile, request: SegmentRequest, parents: Parents) -> None:
        """Before the flush: give a file what one that is made at its place would have, or what the
        file has that it is a copy of."""
        wanted = new_file_in(self._disk, parents.folder, request.like)
        if staged.made_there:
            wanted = wanted._replace(group=staged.group)  # the right one, or the best there is
        give(self._disk, staged.fd, staged.group, wanted)
        if request.like is not None:
            self._disk.set_modified(staged.fd, request.like.st_mtime_ns)

    @contextmanager
    def last_try(self, name: str, file_id: str | None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise NameRefusedError(
                name, "nothing can be moved there from the store's folders", file_id=file_id
            ) from error

    def rename(
        self, staged: str, place: Place, parents: Parents, name: str, file_id: str | None
    ) -> None:
        try:
            self._disk.rename(
                staged,
                place[-1],
                source_dir=self._staging.folder(staged),
                target_dir=parents.folder,
            )
        except OSError as error:
            if error.errno in _REFUSED:
                raise NameRefusedError(name, _REFUSED[error.errno], file_id=file_id) from error
            pass_on(error)
            # The kernel was given names in folders; people need the path.
            path = os.path.join(self._home.storage_dir, *place)
            raise type(error)(error.errno, error.strerror, path) from error
