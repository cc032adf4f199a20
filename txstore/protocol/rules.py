"""What a request gets, given what is known of its transfer.  Pure: the contract's request table.

An engine asks :func:`decide` with what it knows.  The answer is the step to take, the refusal to
raise, or the one fact that is missing; with that fact it asks again.  So a fact that is costly to
know (a hash, a record of an earlier transfer) is looked up only where the decision needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from txstore.errors import RequestError
from txstore.protocol.request import FileClaim, SegmentRequest


class Step(Enum):
    """What an engine does with a request."""

    BEGIN = auto()
    """Open a transfer with this first segment."""
    APPEND = auto()
    """Record this next segment."""
    ACKNOWLEDGE = auto()
    """Give the last recorded segment's answer once more."""
    FINISH = auto()
    """Publish the open transfer's bytes, with this last segment at their end."""
    STORE = auto()
    """Publish this one segment as a whole file."""
    ANSWER = auto()
    """Give the answer of an earlier, equal last message once more."""


class Fact(Enum):
    """What an engine has to find out before it can be told what to do."""

    SAME = auto()
    """Whether the last recorded segment has the bytes of this request."""
    CONTENT = auto()
    """Size and SHA-256 of all recorded bytes with this request's at their end."""
    ANSWERED = auto()
    """Whether an equal last message was carried out, and what it stored can still be answered
    for."""


@dataclass(frozen=True)
class Refusal:
    """The request is refused.

    :ivar error: what to raise
    :ivar ends: whether the open transfer ends with it, as no later message could mend it
    """

    error: RequestError
    ends: bool = False


@dataclass(frozen=True)
class Known:
    """What an engine knows of a request's transfer; ``None``: not yet.

    :ivar segments: number of the last recorded segment; 0: no transfer with the id is open
    :ivar over: why a limit refuses what is next in turn, if one does
    """

    segments: int
    over: RequestError | None = None
    same: bool | None = None
    content: tuple[int, bytes] | None = None
    answered: bool | None = None


def decide(request: SegmentRequest, known: Known) -> Step | Fact | Refusal:
    """What to do with a request that is no cancel.

    A last message may both finish the open transfer and repeat an earlier one.  Then it finishes:
    the file is the same, and the sender's second transfer does not stay open.
    """
    if request.store is None:
        return _plain(request, known)
    claimed = (request.store.size, request.store.sha256)
    is_next = request.number == known.segments + 1
    if is_next and known.segments and known.over is None:
        if known.content is None:
            return Fact.CONTENT
        if known.content == claimed:
            return Step.FINISH
    if known.answered is None:
        return Fact.ANSWERED
    if known.answered:
        return Step.ANSWER
    if not is_next:
        return Refusal(request.out_of_turn(known.segments))
    return _unanswered(request, request.store, known)


def _unanswered(request: SegmentRequest, claim: FileClaim, known: Known) -> Step | Fact | Refusal:
    """A last message that is next in turn, repeats none, and does not finish an open transfer."""
    if known.over is not None:
        return Refusal(known.over)
    if known.content is None:
        return Fact.CONTENT
    if known.content == (claim.size, claim.sha256):
        return Step.STORE
    return Refusal(request.mismatch(claim, *known.content), ends=known.segments > 0)


def _plain(request: SegmentRequest, known: Known) -> Step | Fact | Refusal:
    if request.number == known.segments + 1:
        if known.over is not None:
            return Refusal(known.over)
        return Step.APPEND if known.segments else Step.BEGIN
    if request.number == known.segments and known.segments:
        if known.same is None:
            return Fact.SAME
        if known.same:
            return Step.ACKNOWLEDGE
    return Refusal(request.out_of_turn(known.segments))
