"""Whether the limits let in what is next in turn.  Pure: an engine finds out what is used.

No limit is asked about a transfer's last segment but the file's size: it ends the transfer, and so
gives back what the others bound.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import NamedTuple

from txstore.errors import LimitError
from txstore.limits import Limits
from txstore.protocol.request import SegmentRequest


class Usage(NamedTuple):
    """What all unfinished transfers have together.

    :ivar transfers: how many there are
    :ivar bytes: their recorded bytes, where these are bounded
    """

    transfers: int
    bytes: int


class Space(NamedTuple):
    """What a file system has, in bytes.

    :ivar free: that this user may still take
    :ivar total: all of it; 0: not known
    """

    free: int
    total: int


def size_refusal(limits: Limits, request: SegmentRequest, received: int) -> LimitError | None:
    """The error for a segment with which the file is, or is said to become, too large.

    :param received: bytes that the transfer has
    """
    most = limits.max_file_size
    wanted = max(received + len(request.payload), request.size or 0)
    if most is None or wanted <= most:
        return None
    text = f"files of at most {most} bytes are taken, and it has {wanted} or more."
    return _refusal(request, text, "max_file_size", most, received, wanted)


def space_refusal(
    limits: Limits, request: SegmentRequest, segments: int, space: Space
) -> LimitError | None:
    """The error for a segment that would leave too little of the file system free.

    A new file is refused first, while there is half of what is kept free for the transfers that
    have begun: they are to come to their ends.

    :param segments: that the transfer has
    """
    kept = limits.kept_free(space.total)
    least = kept // 2 if segments else kept
    more = _announced(request, segments)
    if space.total == 0 or space.free - more >= least:
        return None
    text = f"{space.free} bytes are free, and {least} are to stay free. Send it again later."
    used = space.total - space.free
    return _refusal(request, text, "min_free", space.total - least, used, used + more)


@dataclass(frozen=True)
class Quota:
    """What all unfinished transfers may have together, for one segment that is not the last.

    An engine has it kept by the transaction that records the segment, so that no two workers pass
    it together.

    :ivar max_transfers: how many transfers there may be with it; ``None``: any number, or it
        begins none
    :ivar max_bytes: how many bytes; ``None``: any number
    :ivar more: bytes that it counts for
    """

    request: SegmentRequest
    max_transfers: int | None
    max_bytes: int | None
    more: int

    @classmethod
    def of(cls, limits: Limits, request: SegmentRequest, segments: int) -> Quota | None:
        """The quota for a segment that is next in turn; ``None`` where there is none.

        :param segments: that the transfer has
        """
        most = None if segments else limits.max_transfers
        if most is None and limits.max_unfinished_bytes is None:
            return None
        return cls(request, most, limits.max_unfinished_bytes, _announced(request, segments))

    def refusal(self, usage: Usage) -> LimitError | None:
        """The error where there is no place for the segment."""
        if self.max_transfers is not None and usage.transfers >= self.max_transfers:
            text = f"{usage.transfers} transfers are under way, and no more are taken. {_LATER}"
            facts = (self.max_transfers, usage.transfers, usage.transfers + 1)
            return _refusal(self.request, text, "max_transfers", *facts)
        if self.max_bytes is not None and usage.bytes + self.more > self.max_bytes:
            text = (
                f"the unfinished transfers have {usage.bytes} bytes and may have {self.max_bytes}"
                f" together. {_LATER}"
            )
            facts = (self.max_bytes, usage.bytes, usage.bytes + self.more)
            return _refusal(self.request, text, "max_unfinished_bytes", *facts)
        return None


def wants_room(error: Exception) -> bool:
    """Whether a call that failed may succeed when others have given something back."""
    if isinstance(error, LimitError):
        return error.option != "max_file_size"
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


_LATER = "Send it again when others are finished."


def _announced(request: SegmentRequest, segments: int) -> int:
    """Bytes that a segment brings, and with a first one those that it says will follow."""
    return len(request.payload) if segments else max(len(request.payload), request.size or 0)


def _refusal(
    request: SegmentRequest, text: str, option: str, limit: int, used: int, wanted: int
) -> LimitError:
    what = "The file" if request.name is None else f"The file {request.name!r:.100}"
    if request.given_id is not None:
        what += f" with id {request.given_id!r}"
    return LimitError(
        f"{what} is refused: {text}",
        option=option,
        limit=limit,
        used=used,
        wanted=wanted,
        file_id=request.given_id,
    )
