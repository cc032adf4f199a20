"""Whether the bytes of unfinished transfers are what the journal says.

What is worked on meanwhile must not be told as damage.  So what a first look finds is looked at
again while no worker can touch it; and bytes that were read and are other ones are told only if the
row is still of the same bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from txstore import digest
from txstore.checks import Finding, finding
from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError, NameRefusedError
from txstore.local.files.content import has_content
from txstore.local.files.places import is_staging_name, place_of
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import stripe_in
from txstore.local.journal.rows import Transfer
from txstore.local.locks import stripe_of
from txstore.local.looking.look import Look
from txstore.local.trust import Facts, Verdict, judge
from txstore.local.trust import Found as InPlace


class _ToRead(NamedTuple):
    """Bytes of which only reading tells whether they are right.

    :ivar intended: they are the whole file that is about to be published
    """

    staged: StagedFile
    row: Transfer
    intended: bool


class TransferChecks:
    """Looks at all unfinished transfers.  For one thread.

    :param deep: read all bytes, not only those of which nothing else tells
    """

    def __init__(self, look: Look, *, deep: bool) -> None:
        self._look, self._deep = look, deep
        self._found, self._disk, self._places = look.found, look.disk, look.places
        self._records, self._locks = look.records, look.locks

    def findings(self) -> Iterator[Finding]:
        """What is wrong with transfers, and bytes that belong to none."""
        # First the files: who begins a transfer makes its file before its row.
        names = [
            name
            for folder in self._found.stagings.values()
            for name in self._disk.list_folder(folder)
        ]
        for row in self._records.every_transfer(self._look.timeout):
            try:
                problem = self._examine(row)
            except PermissionError as error:
                path = self._found.staging_path(row.staging)
                problem = finding("unreadable", path=path, problem=error.strerror)
            except LockTimeoutError as error:
                problem = finding(
                    "busy", subject=f"Transfer {row.file_id!r}", seconds=error.timeout
                )
            if problem is not None:
                yield problem
        yield from self._orphans(names)

    # --- one transfer ------------------------------------------------------------------------

    def _examine(self, row: Transfer) -> Finding | None:
        current: Transfer | None = row
        seen, sure = self._see(row), False
        while current is not None and seen is not None:
            row = current
            if isinstance(seen, Finding):
                if sure:
                    return seen
                current, seen = self._see_again(row)
                sure = True
                continue
            problem = self._read(seen)
            if problem is None:
                return None
            current = self._records.by_staging(row.staging, self._look.deadline())
            if current is not None:
                if _is_same(current, row):
                    return problem
                seen, sure = self._see(current), False
        return None

    def _see_again(self, row: Transfer) -> tuple[Transfer | None, Finding | _ToRead | None]:
        """Look at a transfer while no worker can touch it.

        A row with an intent is changed under the lock of the name, any other under the transfer's.
        """
        while True:
            deadline = self._look.deadline()
            intended = row.publish_place

            def look(
                row: Transfer = row,
                deadline: Deadline = deadline,
                intended: bytes | None = intended,
            ) -> tuple[Transfer | None, Finding | _ToRead | None]:
                current = self._records.by_staging(row.staging, deadline)
                if current is None or current.publish_place != intended:
                    return current, None
                return current, self._see(current)

            if intended is None:
                current, seen = self._locks.with_transfer(row.file_id, deadline, look)
            else:
                current, seen = self._locks.with_name(intended, deadline, look)
            if current is None or current.publish_place == intended:
                return current, seen
            row = current

    def _see(self, row: Transfer) -> Finding | _ToRead | None:
        """What is wrong, as far as it shows without reading; or what has to be read."""
        problem = _contradiction(row)
        if problem is not None:
            return finding("transfer-row", file_id=row.file_id, problem=problem)
        if row.publish_place is not None:
            if self._is_renamed(row):
                return None
            seen = self._see_staged(_whole(row), row)
            if not isinstance(seen, Finding) or not self._can_withdraw(row):
                return seen
            if row.segments == 0:
                return None  # withdrawn, it is over
        return self._see_staged(row, None)

    def _see_staged(self, row: Transfer, intent: Transfer | None) -> Finding | _ToRead | None:
        path = self._found.staging_path(row.staging)
        try:
            found = self._disk.stat(path)
            size = found.st_size if stat.S_ISREG(found.st_mode) else -1
        except (FileNotFoundError, NotADirectoryError):
            found, size = None, -1
        verdict = judge(self._facts(row, found, size))
        if verdict in (Verdict.DAMAGED, Verdict.GO_BACK):
            if verdict is Verdict.GO_BACK and self._may_go_back(row, size):
                return None
            if size < 0:
                return finding("transfer-missing", file_id=row.file_id, path=path)
            return finding(
                "transfer-short", file_id=row.file_id, path=path, size=size, wanted=row.offset
            )
        assert found is not None
        if found.st_nlink > 1 and intent is None:
            return finding("transfer-linked", file_id=row.file_id, path=path)
        if not self._deep and verdict is not Verdict.VERIFY_WHOLE:
            return None
        try:
            fd = self._disk.open(path, write=False)
        except FileNotFoundError:
            return finding("transfer-missing", file_id=row.file_id, path=path)
        staged = StagedFile(self._disk, row.file_id, row.staging, path, fd, found)
        return _ToRead(staged, intent or row, intent is not None)

    def _facts(self, row: Transfer, found: os.stat_result | None, size: int) -> Facts:
        if found is not None and size >= row.offset:
            place = InPlace.SAME if found.st_ino == row.inode else InPlace.ANOTHER
        else:
            place = InPlace.OLDER if size >= row.durable_offset else InPlace.NOTHING
        same_boot = self._found.is_this_boot(row.written_boot)
        return Facts(place, same_boot, row.durable, bool(row.doubted), copied=False)

    @staticmethod
    def _may_go_back(row: Transfer, size: int) -> bool:
        """Whether nothing that had to survive a power loss is gone."""
        return row.durable_segments == 0 or (not row.durable and size >= row.durable_offset)

    def _read(self, seen: _ToRead) -> Finding | None:
        """What is wrong with bytes, once they were read."""
        staged, row, intended = seen
        try:
            if intended:
                hasher = digest.new()
                whole = staged.hash_to(hasher, row.publish_size or 0)
                if whole and hasher.digest() == row.publish_sha256:
                    return None
            if (not intended or self._can_withdraw(row)) and self._is_kept(staged, row):
                return None
        finally:
            staged.close()
        return finding("transfer-changed", file_id=row.file_id, path=staged.path)

    def _is_kept(self, staged: StagedFile, row: Transfer) -> bool:
        """Whether the bytes are those that were recorded, or those that had to survive."""
        points = [(row.offset, row.state)]
        in_cache = self._found.is_this_boot(row.written_boot) and not row.doubted
        if not (in_cache or row.durable):
            points.append((row.durable_offset, row.durable_state))
        return any(self._fits(staged, offset, state) for offset, state in points)

    @staticmethod
    def _fits(staged: StagedFile, offset: int, state: bytes | None) -> bool:
        # Without OpenSSL a row keeps the hash of fewer bytes than were received, or none.
        known = min(digest.total(state) or 0, offset)
        hasher = digest.new()
        return (
            staged.hash_to(hasher, known)
            and hasher.digest() == digest.digest_of(state, known)
            and staged.size >= offset
        )

    # --- an intent ---------------------------------------------------------------------------

    def _is_renamed(self, row: Transfer) -> bool:
        """Whether the file of an intent is at its place: the next worker completes it."""
        place = place_of(row.publish_place or b"")
        with ExitStack() as opened:
            try:
                parents = opened.enter_context(self._places.look(place))
                found = self._disk.stat(place[-1], dir_fd=parents.folder)
            except (FileNotFoundError, NotADirectoryError, NameRefusedError):
                return False
            if found.st_size != row.publish_size:
                return False
            if found.st_ino == row.inode:
                return True
            # In a restored backup files have other inodes.
            return not self._has(row.staging) and has_content(
                self._disk, place[-1], parents.folder, row.publish_sha256
            )

    def _has(self, staging: str) -> bool:
        try:
            self._disk.stat(self._found.staging_path(staging))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _can_withdraw(self, row: Transfer) -> bool:
        """Whether a power loss can have touched the bytes of an intent: then it is withdrawn, and
        the transfer is at its last segment again."""
        return not row.publish_flushed and not self._found.is_this_boot(row.written_boot)

    # --- bytes of no transfer ----------------------------------------------------------------

    def _orphans(self, names: list[str]) -> Iterator[Finding]:
        known = self._records.stagings(self._look.deadline())
        for name in names:
            if name in known or not is_staging_name(name):
                continue
            path = self._found.staging_path(name)
            try:
                size = self._orphan_size(name)
            except LockTimeoutError as error:
                yield finding("busy", subject=path, seconds=error.timeout)
                continue
            if size is not None:
                yield finding("orphan", path=path, size=size, name=name)

    def _orphan_size(self, name: str) -> int | None:
        """How large a staging file is that belongs to no transfer; ``None``: it does, or is gone.

        Without the lock its worker may be about to record it.
        """
        deadline = self._look.deadline()

        def look() -> int | None:
            try:
                found = self._disk.stat(self._found.staging_path(name))
            except FileNotFoundError:
                return None
            return found.st_size if self._records.by_staging(name, deadline) is None else None

        stripe = stripe_in(name)
        assert stripe is not None
        return self._locks.with_stripe(stripe, deadline, look)


def _whole(row: Transfer) -> Transfer:
    """A row as if the segment that an intent is for were recorded."""
    whole = row._replace(offset=row.publish_size or 0)
    if not row.publish_flushed or row.durable_segments == 0:
        # Of a transfer that has no durable point a power loss may take the name of its bytes.
        return whole._replace(segments=row.segments + 1)
    return whole._replace(durable_segments=row.segments, durable_offset=whole.offset)


def _is_same(current: Transfer, row: Transfer) -> bool:
    """Whether a row is still of the bytes that were read: more may have come, none went."""
    return (current.inode, current.setbacks, current.publish_sha256, current.publish_place) == (
        row.inode,
        row.setbacks,
        row.publish_sha256,
        row.publish_place,
    )


def _contradiction(row: Transfer) -> str | None:
    """What no worker ever writes."""
    if stripe_in(row.staging) != stripe_of(row.file_id.encode()):
        return f"its bytes are in {row.staging!r}"
    if not 0 <= row.durable_offset <= row.offset or not 0 <= row.last_size <= row.offset:
        return f"it has {row.offset} bytes, {row.durable_offset} of them durable"
    # Without a segment there is one whose only one is about to be published.
    least = 0 if row.publish_place is not None else 1
    if not 0 <= row.durable_segments <= row.segments or row.segments < least:
        return f"it has {row.segments} segments, {row.durable_segments} of them durable"
    for state, most in ((row.state, row.offset), (row.durable_state, row.durable_offset)):
        total = digest.total(state)
        if state is not None and (
            total is None or total > most or digest.digest_of(state, total) is None
        ):
            return "the hash that is kept of its bytes is damaged"
    return None
