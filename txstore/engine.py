"""What an engine is: it keeps the promises of one kind of storage.

The façade (``store``) checks requests, and knows nothing else of how they are kept.  What a request
gets is decided by ``protocol.rules``, which each engine asks.
"""

from __future__ import annotations

import os
from typing import Protocol

from txstore.deadline import Deadline
from txstore.protocol.request import SegmentRequest
from txstore.protocol.result import FileStoreSegmentResult
from txstore.protocol.status import TransferStatus


class Engine(Protocol):
    """What a manager has opened in one process.  Thread-safe.

    Each call is transactional: after an error the transfer is as it was before or as it is after,
    and its status tells which.

    :ivar storage_dir: where files are stored, so that a later process finds it
    :ivar working_dir: likewise, where unfinished transfers are
    :ivar spoilt: set where a call was cut off in the middle, so that nothing kept in memory is
        known to be right; the engine is used by nobody else then, and abandoned after its last call
    """

    storage_dir: str
    working_dir: str
    spoilt: bool

    # --- the protocol ------------------------------------------------------------------------

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

    def status(self, file_id: str, deadline: Deadline) -> TransferStatus | None:
        """One transfer, settled first; ``None``: not known."""
        ...

    def stored_sha256(self, path: str, found: os.stat_result, deadline: Deadline) -> str | None:
        """The hash of a stored file, as far as it is known without reading the file."""
        ...

    # --- ends --------------------------------------------------------------------------------

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed; their ids."""
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
