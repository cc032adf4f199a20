"""What an engine is: it keeps the promises of one kind of storage.

The façade (``store``) checks requests, and knows nothing else of how they are kept.  What a request
gets is decided by ``protocol.rules``, which each engine asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from txstore.checks import Finding, Verified
from txstore.deadline import Deadline
from txstore.protocol.catalogue import Page, Reached
from txstore.protocol.event import Consumer, Event
from txstore.protocol.names import NameRules
from txstore.protocol.request import FileStoreSegmentResult, SegmentRequest
from txstore.protocol.status import Totals, TransferStatus
from txstore.protocol.stored import OpenedFile, StoredFile


class Turn(Protocol):
    """A consumer's turn: as long as it is not over, nobody else has one under the same name.

    :ivar cursor: number of the last event that the consumer was done with when the turn began
    """

    cursor: int

    def check(self) -> None:
        """:raises OSError: it is over, and somebody else may have it"""
        ...

    def end(self) -> None:
        """Let others have it.  May be called more than once, and by any thread."""
        ...


class Events(Protocol):
    """What is told of transfers that ended, and who has seen how much of it.  Thread-safe.

    An event is recorded in the step that ends its transfer.  Its number is higher than those of all
    that could be seen before, so whoever goes on after the last number that he saw misses none.
    """

    def after(self, sequence: int, limit: int, deadline: Deadline) -> list[Event]:
        """The next events, oldest first.  What is told is durable, as the level says, so that no
        number is ever told of two."""
        ...

    def consumers(self, deadline: Deadline) -> list[Consumer]:
        """All consumers, by name."""
        ...

    def take_turn(self, name: str, deadline: Deadline) -> Turn | None:
        """Register a consumer, if need be, and take its turn; ``None``: somebody else has it.

        It ends with whoever has it: a process that dies holds nobody up.
        """
        ...

    def done(self, name: str, sequence: int, deadline: Deadline) -> None:
        """A consumer is done with an event and all before; durable, as the level says.  Its cursor
        never goes back.

        :raises UnknownConsumerError: it was removed
        """
        ...

    def remove_consumer(self, name: str, deadline: Deadline) -> bool:
        """Forget a consumer; ``False``: none has that name.  Durable, as the level says."""
        ...


class Engine(Protocol):
    """What a manager has opened in one process.  Thread-safe.

    Each call is transactional: after an error the transfer is as it was before or as it is after,
    and its status tells which.

    :ivar storage_dir: where files are stored, so that a later process finds it
    :ivar working_dir: likewise, where unfinished transfers are
    :ivar names: what the name of a stored file must look like
    :ivar events: what is told of transfers that ended
    :ivar spoilt: set where a call was cut off in the middle, so that nothing kept in memory is
        known to be right; the engine is used by nobody else then, and abandoned after its last call
    """

    storage_dir: str
    working_dir: str
    names: NameRules
    spoilt: bool

    @property
    def events(self) -> Events: ...

    # --- the protocol ------------------------------------------------------------------------

    def deadline(self, timeout: float) -> Deadline:
        """What bounds the waiting of one call that begins now, and is given to each method of that
        call; an engine may note more of the call in it."""
        ...

    def store_segment(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Take one message of a transfer; what it brought is kept as the level says."""
        ...

    def cancel(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Drop an unfinished transfer."""
        ...

    # --- looking -----------------------------------------------------------------------------

    def transfers(self, prefix: str, deadline: Deadline) -> list[TransferStatus]:
        """The unfinished transfers whose ids begin with a text, oldest first."""
        ...

    def count_transfers(self, deadline: Deadline) -> int:
        """How many unfinished transfers there are."""
        ...

    def totals(self, deadline: Deadline) -> Totals:
        """What there is in all: unfinished transfers, events, room."""
        ...

    def status(self, file_id: str, deadline: Deadline) -> TransferStatus | None:
        """One transfer, settled first; ``None``: not known."""
        ...

    def stored(self, after: str | None, limit: int, deadline: Deadline) -> list[StoredFile]:
        """Some stored files, in an order of the engine's own, from after a name on; fewer than
        the limit: there are no more.  The name need not be there any more."""
        ...

    def open_stored(self, name: str, deadline: Deadline) -> OpenedFile:
        """A stored file, for reading.

        :raises NameRefusedError: nothing is stored under such a name
        :raises OSError: nothing is there, or it is no file (``ENOENT``, ``EISDIR``, ``EINVAL``)
        """
        ...

    def stored_sha256(self, path: str, found: os.stat_result, deadline: Deadline) -> str | None:
        """The hash of a stored file, as far as it is known without reading the file."""
        ...

    def catalogue(self, after: str, limit: int, deadline: Deadline) -> Page:
        """What was stored and is there still, as far as is known without looking: some of it, in
        the order of the keys.

        :param after: key after which to begin
        """
        ...

    # --- ends --------------------------------------------------------------------------------

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed; their ids."""
        ...

    def mend(self, found: Finding, deadline: Deadline) -> bool:
        """Mend what a check found, so that nothing acknowledged is lost; ``False``: it could not
        be mended now."""
        ...

    def is_usable(self) -> bool:
        """Whether it belongs to this process still, and nothing is known against it."""
        ...

    def let_go(self) -> None:
        """After a call of this thread failed, wherever: let go of all locks that the thread has.
        May be cut off, and called again."""
        ...

    def abandon(self) -> None:
        """Let go of everything without waiting for anybody."""
        ...

    def close(self) -> None:
        """Let go of everything in good order.  No call is inside."""
        ...


class Inspector(Protocol):
    """What looks at a store without writing a byte, beside running workers or not.  Thread-safe.

    :ivar storage_dir: where files are stored
    :ivar working_dir: where unfinished transfers are
    """

    storage_dir: str
    working_dir: str

    def totals(self) -> Totals:
        """What there is in all: unfinished transfers, events, room."""
        ...

    def check(self, *, deep: bool) -> Iterator[Finding]:
        """What is wrong.  What runs beside it makes no finding.

        :param deep: read all bytes, not only those of which nothing else tells
        """
        ...

    def catalogue(self, after: str, limit: int) -> Page:
        """As ``Engine.catalogue``."""
        ...

    def verify(self, after: str, reached: Reached) -> Iterator[Verified]:
        """Read the files of the catalogue, in the order of its keys, from after one on.  What is
        replaced meanwhile is read anew."""
        ...

    def verify_named(self, name: str, reached: Reached) -> Verified:
        """Read one file.

        :raises NameRefusedError: nothing is stored under such a name
        """
        ...
