"""Hypothesis strategies for what senders send and what brokers make of it.

What they generate is small by default, so that thousands of examples run in seconds.  It sits on
the edges where stores go wrong: empty files and segments, sizes around a hash's and a disk's
blocks, ids and names at their longest, runs of zeros.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from hypothesis import strategies as st

from txstore.testing.faults import CHANGING, CHANGING_REQUESTS, OF_SERVERS, Fault
from txstore.testing.messages import Message, Transfer
from txstore.testing.model import Claims, Expected, State, step
from txstore.testing.requests import InvalidRequest, invalid_requests, valid_requests
from txstore.testing.values import contents, file_ids, names, segmentations

__all__ = [
    "Delivery",
    "InvalidRequest",
    "contents",
    "crashes",
    "disk_errors",
    "file_ids",
    "interleavings",
    "invalid_requests",
    "names",
    "segmentations",
    "server_crashes",
    "server_errors",
    "transfers",
    "valid_requests",
]


@st.composite
def transfers(
    draw: st.DrawFn,
    *,
    file_id: st.SearchStrategy[str | None] | None = None,
    name: st.SearchStrategy[str] | None = None,
    content: st.SearchStrategy[bytes] | None = None,
    min_segments: int = 1,
    max_segments: int = 6,
) -> Transfer:
    """A file on its way.

    :param file_id: where its id comes from; by default senders choose it, ``st.none()`` lets the
        store assign it
    :param name: where its name comes from
    :param content: where its bytes come from
    """
    whole = draw(contents() if content is None else content)
    return Transfer(
        name=draw(names() if name is None else name),
        segments=draw(segmentations(whole, min_segments=min_segments, max_segments=max_segments)),
        file_id=draw(file_ids() if file_id is None else file_id),
    )


# --- what a broker makes of several -------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A message as it arrives.

    :ivar message: what arrives
    :ivar worker: index of the store that it is delivered to
    :ivar expected: what the contract says it must be answered, all deliveries before it made
    :ivar happened: what the broker or the sender did, in words
    """

    message: Message
    worker: int
    expected: Expected
    happened: str = field(compare=False)


_WELL = "the next message"
_AGAIN = "the next message, its answer lost"
_EARLY = "a message that overtook the next one"
_GONE = "nothing: the sender is gone"
_LATE = "a late copy of an earlier message"
_TROUBLE = (_AGAIN, _EARLY, _GONE, _LATE)


@st.composite
def interleavings(
    draw: st.DrawFn,
    *,
    sent: st.SearchStrategy[list[Transfer]] | None = None,
    workers: int = 1,
    max_trouble: int = 6,
    claims: Claims | None = None,
) -> list[Delivery]:
    """Several transfers at once, as they reach the workers of a service over a real broker.

    The messages of a transfer reach any of the workers.  Some answers are lost, so that the sender
    sends the same again; copies come late, even of transfers that are over; a message overtakes
    the one before it; a sender disappears and leaves its transfer unfinished.

    :param sent: the transfers, their ids chosen by the senders and all different
    :param workers: number of stores over the same folders
    :param max_trouble: how often something goes wrong at most
    :param claims: of the store it is meant for; by default the whole contract
    """
    if sent is None:
        sent = st.lists(
            transfers(max_segments=4), min_size=1, max_size=3, unique_by=lambda one: one.file_id
        )
    claims = Claims.everything() if claims is None else claims
    several = draw(sent)
    following = dict.fromkeys(range(len(several)), 1)
    trouble = draw(st.integers(0, max_trouble))
    state = State()
    deliveries: list[Delivery] = []
    while following:
        index = draw(st.sampled_from(sorted(following)))
        transfer, number = several[index], following[index]
        happened = _WELL
        if trouble and draw(st.booleans()):
            trouble -= 1
            happened = draw(st.sampled_from(_TROUBLE if deliveries else _TROUBLE[:-1]))
        if happened == _WELL:
            following[index] += 1
        if happened == _GONE or following[index] > len(transfer.segments):
            del following[index]
        if happened == _GONE:
            continue
        if happened == _EARLY:
            number = min(number + 1, len(transfer.segments))
        message = transfer.message(number)
        if happened == _LATE:
            message = draw(st.sampled_from(deliveries)).message
        expected, state = step(state, message, claims)
        worker = draw(st.integers(0, workers - 1))
        deliveries.append(Delivery(message, worker, expected, happened))
    return deliveries


# --- what the disk makes of it ------------------------------------------------------------------

_CALLS = [*CHANGING, "commit", "statement"]
_LOOKING = ["open", "open_folder", "pread", "fstat", "stat", "try_lock"]
_FIRST = st.sampled_from([1, 1, 2, 3])  # a message makes few calls of one kind
_ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EINTR)


def disk_errors(
    *, max_nth: int = 16, errors: tuple[int, ...] = _ERRORS
) -> st.SearchStrategy[Fault]:
    """Errors of the disk and short writes, once or from some call on, for a ``FaultPlan``.

    :param max_nth: which change of all may be the one; a segment makes about five
    :param errors: errno values
    """
    error, forever = st.sampled_from(errors), st.booleans()
    call = st.sampled_from([*_CALLS, *_LOOKING])
    return st.one_of(
        st.builds(Fault, st.just("change"), st.integers(1, max_nth), error, forever=forever),
        st.builds(Fault, call, _FIRST, error, forever=forever),
        st.builds(
            Fault,
            st.just("pwrite"),
            st.integers(1, 3),
            st.just(0),
            forever=forever,
            short=st.just(True),
        ),
    )


def crashes(*, max_nth: int = 16) -> st.SearchStrategy[Fault]:
    """Crashes before or after some call, for a ``FaultPlan``.

    :param max_nth: which change of all may be the one; a segment makes about five
    """
    crash, after = st.none(), st.booleans()
    return st.one_of(
        st.builds(Fault, st.just("change"), st.integers(1, max_nth), crash, after=after),
        st.builds(Fault, st.sampled_from(_CALLS), _FIRST, crash, after=after),
    )


# --- what two servers make of it ----------------------------------------------------------------

_SERVERS = [*OF_SERVERS, "commit", "connect"]
_OF_SERVERS = (errno.EIO, errno.ENOSPC, errno.EAGAIN, errno.EACCES, errno.ECONNRESET)


def server_errors(*, max_nth: int = 16) -> st.SearchStrategy[Fault]:
    """Errors of PostgreSQL and of an object store, once or from some call on, and answers that are
    lost, for a ``FaultPlan`` of ``FaultyServers``.

    :param max_nth: which change of all may be the one
    """
    error, flag = st.sampled_from(_OF_SERVERS), st.booleans()
    return st.one_of(
        st.builds(Fault, st.just("change"), st.integers(1, max_nth), error, after=flag),
        st.builds(Fault, st.sampled_from(_SERVERS), _FIRST, error, after=flag),
        st.builds(Fault, st.sampled_from(["*", *_SERVERS]), _FIRST, error, forever=st.just(True)),
    )


def server_crashes(*, max_nth: int = 16) -> st.SearchStrategy[Fault]:
    """Crashes of a worker before or after some call to a server, likewise.

    :param max_nth: which change of all may be the one
    """
    crash, after = st.none(), st.booleans()
    calls = st.sampled_from([*CHANGING_REQUESTS, "commit", "execute"])
    return st.one_of(
        st.builds(Fault, st.just("change"), st.integers(1, max_nth), crash, after=after),
        st.builds(Fault, calls, _FIRST, crash, after=after),
    )
