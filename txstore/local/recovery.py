"""From what a crash left of a transfer to what can be built on; safe to interrupt at any point.

Nothing here runs only at open: whoever takes up a transfer settles what a dead or failed worker
left of it.  Which staged bytes are trusted is said in ``trust``; what is read and does not have the
recorded hash is given up, back to the last durable point.
"""

from __future__ import annotations

import logging
import os

from txstore import digest
from txstore.digest import Hasher
from txstore.errors import StagingDamagedError
from txstore.local.clock import Call
from txstore.local.files.home import Home
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import PRIVATE, Staging
from txstore.local.intents import Intents
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Transfer
from txstore.local.transfers import Transfers
from txstore.local.trust import Facts, Found, Verdict, judge, judge_unverified
from txstore.protocol.request import FileClaim

logger = logging.getLogger(__name__)


class Recovery:
    """Takes up transfers for one manager; their locks are held.  Thread-safe."""

    def __init__(
        self,
        home: Home,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        intents: Intents,
    ) -> None:
        self._home, self._staging, self._records = home, staging, records
        self._transfers, self._intents = transfers, intents

    def take_up(
        self,
        file_id: str,
        wanted: FileClaim | None,
        call: Call,
    ) -> tuple[Transfer, StagedFile] | None:
        """A transfer that is not in hand, whose staged bytes can be built on, with its staging
        file; ``None`` where there is no such transfer (any more).  Its lock is held.

        :param wanted: what a last message asks for: an intent for anything else is withdrawn
        :raises StagingDamagedError: somebody removed or changed the staged bytes in this boot
        """
        found = self._look_up(file_id, wanted, call)
        if found is None:
            return None
        row, staged = found
        if not staged.writable:
            row, staged = self._copy(row, staged, call)
        staged.turn = call.turn
        return row, staged

    def _look_up(
        self,
        file_id: str,
        wanted: FileClaim | None,
        call: Call,
    ) -> tuple[Transfer, StagedFile] | None:
        row = self._records.find(file_id, call)
        if row is not None and row.publish_place is not None:
            if wanted is None or _intends(row, wanted):
                self._intents.settle(row, call)
            else:
                self._intents.withdraw_unless_renamed(row, call)
            row = self._records.find(file_id, call)
        if row is None:
            return None
        try:
            staged = self._staging.open(row)
        except StagingDamagedError:
            if judge(self._facts(row, None)) is Verdict.DAMAGED:
                raise
            return self._go_back(row, call)
        facts = self._facts(row, staged)
        if judge(facts) is Verdict.TRUST:
            return row, staged
        return self._verify(row, staged, facts, call)

    def _facts(self, row: Transfer, staged: StagedFile | None) -> Facts:
        """What is known of a transfer's bytes.

        :param staged: its staging file, where one has all of them
        """
        if staged is not None:
            found = Found.SAME if staged.inode == row.inode else Found.ANOTHER
        elif self._staging.has(row.staging, row.durable_offset):
            found = Found.OLDER
        else:
            found = Found.NOTHING
        return Facts(
            found,
            same_boot=self._home.is_this_boot(row.written_boot),
            durable=row.durable,
            doubted=bool(row.doubted),
            # Flushed as ours from then on: verified before, as in `make_own`.
            copied=staged is not None and not staged.writable and row.is_verifiable,
        )

    def make_own(
        self, row: Transfer, staged: StagedFile, call: Call
    ) -> tuple[Transfer, StagedFile] | None:
        """Before a flush: write anew what others staged and did not make durable.

        After a flush that failed the kernel may hold pages for clean that the device never got; a
        later flush, by whomever, succeeds without them.  So their bytes are read, verified and
        written again, or, where they are gone, the transfer goes back.
        """
        try:
            hasher, recorded = _before(row), digest.digest_of(row.state, row.offset)
            whole = staged.hash_to(hasher, row.offset, rewrite_from=row.durable_offset)
        except BaseException:
            staged.close()
            raise
        # Without a recorded hash (no OpenSSL) what the kernel holds in this boot is trusted.
        if whole and (recorded is None or recorded == hasher.digest()):
            staged.own_from = row.durable_offset
            return row, staged
        staged.close()
        return self._go_back(row, call)

    def make_publishable(
        self, row: Transfer, staged: StagedFile, call: Call
    ) -> tuple[Transfer, StagedFile]:
        """Before a file is published: copy it where another user staged it, since only the owner
        of a file may give it the mode of a published one; or where it cannot be renamed from any
        more."""
        try:
            stays = not (staged.foreign or self._staging.is_stranded(staged))
        except BaseException:
            staged.close()
            raise
        return (row, staged) if stays else self._copy(row, staged, call)

    def _copy(self, row: Transfer, staged: StagedFile, call: Call) -> tuple[Transfer, StagedFile]:
        try:
            copy = self._staging.create(row.file_id, PRIVATE if staged.private else None)
        except BaseException:
            staged.close()
            raise
        return self._transfers.go_on_with_copy(row, staged, copy, call), copy

    def _verify(
        self, row: Transfer, staged: StagedFile, facts: Facts, call: Call
    ) -> tuple[Transfer, StagedFile] | None:
        """Read what a power loss may have touched, and build on it only if it is what was
        recorded."""
        whole = judge(facts) is Verdict.VERIFY_WHOLE
        hasher = digest.new() if whole else _before(row)
        recorded = digest.digest_of(row.state, row.offset)
        try:
            verified = (
                staged.hash_to(hasher, row.offset)
                and recorded is not None
                and hasher.digest() == recorded
            )
            if not verified:
                if judge_unverified(facts) is Verdict.DAMAGED:
                    raise StagingDamagedError(staged.path, row.file_id, "was replaced by another")
                staged.close()
                return self._go_back(row, call)
            fit = row.touched(call.at).in_file(staged.inode)
            self._transfers.save(row, fit, call)
        except BaseException:
            staged.close()
            raise
        staged.hasher, staged.setbacks = hasher, fit.setbacks
        staged.own_from = fit.offset
        return fit, staged

    def _go_back(self, row: Transfer, call: Call) -> tuple[Transfer, StagedFile] | None:
        """Back to the last durable point, if its bytes are there; else the transfer is dropped."""
        back = row.at_durable_point().touched(call.at)
        if 0 < back.segments < row.segments:
            try:
                staged = self._staging.open(back)
            except StagingDamagedError:
                staged = None
            if staged is not None:
                hasher, recorded = digest.new(), digest.digest_of(back.state, back.offset)
                back = back.in_file(staged.inode)
                try:
                    whole = staged.hash_to(hasher, back.offset)
                    # Without a recorded hash (no OpenSSL) the flush before is trusted.
                    fits = whole and (recorded is None or recorded == hasher.digest())
                    if fits:
                        self._transfers.save(row, back, call)
                except BaseException:
                    staged.close()
                    raise
                if fits:
                    staged.hasher, staged.setbacks = hasher, back.setbacks
                    staged.own_from = back.offset
                    logger.warning(
                        "Transfer %r went back from segment %d to %d: a power loss or a failed"
                        " flush took what was not durable",
                        row.file_id,
                        row.segments,
                        back.segments,
                    )
                    return back, staged
                staged.close()
        self._transfers.drop(row, call)
        logger.warning(
            "Transfer %r was dropped at segment %d: a power loss or a failed flush took its bytes",
            row.file_id,
            row.segments,
        )
        return None


def _intends(row: Transfer, wanted: FileClaim) -> bool:
    return (row.publish_path, row.publish_size, row.publish_sha256) == (
        os.fsencode(wanted.path),
        wanted.size,
        wanted.sha256,
    )


def _before(row: Transfer) -> Hasher:
    """The hasher of the bytes up to the durable point; of none where that is not known."""
    hasher = digest.load(row.durable_state) if row.durable_offset else None
    return hasher if hasher is not None and hasher.total == row.durable_offset else digest.new()
