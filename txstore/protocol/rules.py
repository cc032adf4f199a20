"""What a request gets, given what is known of its transfer.  Pure: the contract's request table.

An engine asks :func:`decide` with what it knows.  The answer is the step to take, the refusal to
raise, or the one fact that is missing; with that fact it asks again.  So a fact that is costly to
know (a hash, a record of an earlier transfer) is looked up only where the decision needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from txstore.errors import NameTakenError, RequestError
from txstore.limits import Limits
from txstore.protocol.admission import Quota, Space, Usage, size_refusal, space_refusal
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
    END = auto()
    """The same, and drop the open transfer, which the message would finish: its file is there."""


class Fact(Enum):
    """What an engine has to find out before it can be told what to do."""

    SAME = auto()
    """Whether the last recorded segment has the bytes of this request."""
    CONTENT = auto()
    """Size and SHA-256 of all recorded bytes with this request's at their end."""
    ANSWERED = auto()
    """Whether an equal last message was carried out, and what it stored can still be answered
    for."""
    SPACE = auto()
    """What the file system has free."""
    USAGE = auto()
    """What all unfinished transfers have together."""
    TAKEN = auto()
    """Whether anything stands under the file's name.  It is known only while nobody else can
    publish there, and so long the answer to it has to be carried out."""


@dataclass(frozen=True)
class Refusal:
    """The request is refused.

    :ivar error: what to raise
    :ivar ends: whether the open transfer ends with it, as no later message could mend it
    """

    error: RequestError
    ends: bool = False


class Known(NamedTuple):
    """What an engine knows of a request's transfer; ``None``: not yet.

    :ivar segments: number of the last recorded segment; 0: no transfer with the id is open
    :ivar received: its recorded bytes
    :ivar taken: whether the file's name is taken by what is not to be replaced; an engine that
        replaces files knows from the beginning that it is not
    """

    segments: int
    received: int = 0
    same: bool | None = None
    content: tuple[int, bytes] | None = None
    answered: bool | None = None
    space: Space | None = None
    usage: Usage | None = None
    taken: bool | None = False


def decide(request: SegmentRequest, known: Known, limits: Limits | None) -> Step | Fact | Refusal:
    """What to do with a request that is no cancel.

    :param limits: ``None``: there are none

    A last message may both finish the open transfer and repeat an earlier one.  Then it finishes:
    the file is the same, and the sender's second transfer does not stay open.  A repeat is
    answered whatever the limits are, and whether or not its name is taken: most often by its own
    file.
    """
    if request.store is None:
        return _plain(request, known, limits)
    claimed = (request.store.size, request.store.sha256)
    is_next = request.number == known.segments + 1
    over = size_refusal(limits, request, known.received) if limits and is_next else None
    finishes = False
    if is_next and known.segments and over is None:
        if known.content is None:
            return Fact.CONTENT
        finishes = known.content == claimed
        if finishes and not known.taken:
            return Fact.TAKEN if known.taken is None else Step.FINISH
    if known.answered is None:
        return Fact.ANSWERED
    if known.answered:
        return Step.END if finishes else Step.ANSWER
    if not is_next:
        return Refusal(request.out_of_turn(known.segments))
    if known.taken:
        return Refusal(NameTakenError(request.store.name, file_id=request.given_id))
    return _unanswered(request, request.store, known, limits)


def _unanswered(
    request: SegmentRequest, claim: FileClaim, known: Known, limits: Limits | None
) -> Step | Fact | Refusal:
    """A last message that is next in turn, repeats none, and does not finish an open transfer."""
    kept_out = _admit(request, known, limits) if limits else None
    if kept_out is not None:
        return kept_out
    if known.content is None:
        return Fact.CONTENT
    if known.content == (claim.size, claim.sha256):
        return Fact.TAKEN if known.taken is None else Step.STORE
    return Refusal(request.mismatch(claim, *known.content), ends=known.segments > 0)


def _plain(request: SegmentRequest, known: Known, limits: Limits | None) -> Step | Fact | Refusal:
    if request.number == known.segments + 1:
        kept_out = _admit(request, known, limits) if limits else None
        return kept_out or (Step.APPEND if known.segments else Step.BEGIN)
    if request.number == known.segments and known.segments:
        if known.same is None:
            return Fact.SAME
        if known.same:
            return Step.ACKNOWLEDGE
    return Refusal(request.out_of_turn(known.segments))


def _admit(request: SegmentRequest, known: Known, limits: Limits) -> Fact | Refusal | None:
    """Whether the limits let in what is next in turn; ``None``: they do."""
    refusal = size_refusal(limits, request, known.received)
    if refusal is not None:
        return Refusal(refusal)
    if request.store is not None and known.segments:
        return None  # it ends its transfer
    if limits.min_free is not None:
        if known.space is None:
            return Fact.SPACE
        refusal = space_refusal(limits, request, known.segments, known.space)
        if refusal is not None:
            return Refusal(refusal)
    quota = Quota.of(limits, request, known.segments) if request.store is None else None
    if quota is not None:
        if known.usage is None:
            return Fact.USAGE
        refusal = quota.refusal(known.usage)
        if refusal is not None:
            return Refusal(refusal)
    return None
