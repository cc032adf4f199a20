"""The request table as a pure function: each line of it, fact by fact."""

from __future__ import annotations

import pytest

from txstore.errors import (
    FileMismatchError,
    LimitError,
    NameTakenError,
    RepeatMismatchError,
    SequenceError,
)
from txstore.limits import Limits
from txstore.protocol.admission import Space, Usage
from txstore.protocol.request import FileClaim, SegmentRequest
from txstore.protocol.rules import Fact, Known, Refusal, Step, decide

RIGHT, WRONG = (5, b"right" * 6 + b"ri"), (5, b"wrong" * 6 + b"wr")
NONE = Limits()


def plain(number: int) -> SegmentRequest:
    return SegmentRequest("a", number, b"bytes")


def said(number: int, size: int) -> SegmentRequest:
    """A segment that says how large the file will be."""
    return SegmentRequest("a", number, b"bytes", size=size)


def unfinished(limit: int, used: int, wanted: int) -> tuple[str, int, int, int]:
    """How the limit of all unfinished bytes refuses something."""
    return "max_unfinished_bytes", limit, used, wanted


def last(number: int) -> SegmentRequest:
    return SegmentRequest("a", number, b"bytes", store=FileClaim("name", "name", *RIGHT))


@pytest.mark.parametrize(
    ("request_", "known", "decided"),
    [
        # no transfer is open
        (plain(1), Known(0), Step.BEGIN),
        (last(1), Known(0), Fact.ANSWERED),
        (last(1), Known(0, answered=True), Step.ANSWER),
        (last(1), Known(0, answered=False), Fact.CONTENT),
        (last(1), Known(0, answered=False, content=RIGHT), Step.STORE),
        (last(3), Known(0), Fact.ANSWERED),
        (last(3), Known(0, answered=True), Step.ANSWER),
        # two segments are recorded
        (plain(3), Known(2), Step.APPEND),
        (plain(2), Known(2), Fact.SAME),
        (plain(2), Known(2, same=True), Step.ACKNOWLEDGE),
        (last(3), Known(2), Fact.CONTENT),
        (last(3), Known(2, content=RIGHT), Step.FINISH),
        (last(3), Known(2, content=WRONG), Fact.ANSWERED),
        (last(3), Known(2, content=WRONG, answered=True), Step.ANSWER),
        (last(2), Known(2), Fact.ANSWERED),
        (last(2), Known(2, answered=True), Step.ANSWER),
        (last(1), Known(2, answered=True), Step.ANSWER),
        # files are not replaced: asked last, and a repeat is answered whatever stands there
        (plain(1), Known(0, taken=None), Step.BEGIN),
        (last(1), Known(0, answered=True, taken=None), Step.ANSWER),
        (last(1), Known(0, answered=False, content=RIGHT, taken=None), Fact.TAKEN),
        (last(1), Known(0, answered=False, content=RIGHT, taken=False), Step.STORE),
        (last(3), Known(2, taken=None), Fact.CONTENT),
        (last(3), Known(2, content=RIGHT, taken=None), Fact.TAKEN),
        (last(3), Known(2, content=RIGHT, taken=False), Step.FINISH),
        (last(3), Known(2, content=RIGHT, taken=True), Fact.ANSWERED),
        (last(3), Known(2, content=RIGHT, answered=True, taken=True), Step.END),
        (last(3), Known(2, content=WRONG, answered=True, taken=True), Step.ANSWER),
    ],
    ids=str,
)
def test_what_a_request_gets(request_: SegmentRequest, known: Known, decided: Step | Fact) -> None:
    assert decide(request_, known, NONE) is decided


@pytest.mark.parametrize("segments", [0, 2])
def test_a_name_that_is_taken_is_refused_and_the_transfer_kept(segments: int) -> None:
    known = Known(segments, answered=False, content=RIGHT, taken=True)
    refused = decide(last(segments + 1), known, NONE)
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, NameTakenError)
    assert not refused.ends


@pytest.mark.parametrize(
    ("request_", "known", "expected"),
    [
        (plain(2), Known(0), 1),
        (plain(4), Known(2), 3),
        (plain(1), Known(2), 3),
        (last(3), Known(0, answered=False), 1),
        (last(4), Known(2, answered=False), 3),
        (last(1), Known(2, answered=False), 3),
    ],
    ids=str,
)
def test_a_number_out_of_turn_is_told_what_is_expected(
    request_: SegmentRequest, known: Known, expected: int
) -> None:
    refused = decide(request_, known, NONE)
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, SequenceError)
    assert (refused.error.expected, refused.error.received) == (expected, request_.number)
    assert not refused.ends


@pytest.mark.parametrize(
    ("request_", "known"),
    [(plain(2), Known(2, same=False)), (last(2), Known(2, answered=False))],
    ids=str,
)
def test_the_last_number_with_something_else_is_no_repeat(
    request_: SegmentRequest, known: Known
) -> None:
    refused = decide(request_, known, NONE)
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, RepeatMismatchError)
    assert not refused.ends


@pytest.mark.parametrize(("segments", "ends"), [(0, False), (2, True)])
def test_wrong_content_ends_the_transfer_that_is_open(segments: int, ends: bool) -> None:
    refused = decide(last(segments + 1), Known(segments, content=WRONG, answered=False), NONE)
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, FileMismatchError)
    assert refused.ends is ends


# Limits.  Each segment has 5 bytes.


def refused(request: SegmentRequest, known: Known, limits: Limits) -> tuple[str, int, int, int]:
    """Why a limit refuses a request, which ends nothing."""
    refusal = decide(request, known, limits)
    assert isinstance(refusal, Refusal), refusal
    assert isinstance(refusal.error, LimitError)
    assert not refusal.ends
    error = refusal.error
    return error.option, error.limit, error.used, error.wanted


@pytest.mark.parametrize(
    ("request_", "known", "facts"),
    [
        (plain(1), Known(0), (4, 0, 5)),
        (said(1, 9), Known(0), (8, 0, 9)),
        (plain(3), Known(2, 4), (8, 4, 9)),
        (said(3, 9), Known(2, 1), (8, 1, 9)),
        (last(1), Known(0, answered=False), (4, 0, 5)),
        (last(3), Known(2, 4, answered=False), (8, 4, 9)),
    ],
    ids=str,
)
def test_a_file_that_becomes_too_large_is_refused(
    request_: SegmentRequest, known: Known, facts: tuple[int, int, int]
) -> None:
    limits = Limits(max_file_size=facts[0])
    assert refused(request_, known, limits) == ("max_file_size", *facts)
    enough = Limits(max_file_size=facts[2])
    assert not isinstance(decide(request_, known, enough), Refusal)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    "limits", [Limits(max_file_size=0), Limits(0, 0, 0, "100%")], ids=["size", "all"]
)
def test_a_repeat_is_answered_whatever_the_limits_are_now(number: int, limits: Limits) -> None:
    known = Known(number - 1)
    assert decide(last(number), known, limits) is Fact.ANSWERED
    assert decide(last(number), Known(number - 1, answered=True), limits) is Step.ANSWER
    assert decide(plain(2), Known(2), limits) is Fact.SAME
    assert decide(plain(2), Known(2, same=True), limits) is Step.ACKNOWLEDGE


@pytest.mark.parametrize(
    ("request_", "usage", "limits", "why"),
    [
        (plain(1), Usage(3, 0), Limits(max_transfers=3), ("max_transfers", 3, 3, 4)),
        (plain(1), Usage(2, 0), Limits(max_transfers=3), None),
        (plain(1), Usage(2, 16), Limits(max_unfinished_bytes=20), unfinished(20, 16, 21)),
        (plain(1), Usage(2, 15), Limits(max_unfinished_bytes=20), None),
        (said(1, 6), Usage(2, 15), Limits(max_unfinished_bytes=20), unfinished(20, 15, 21)),
        (said(1, 5), Usage(2, 15), Limits(max_unfinished_bytes=20), None),
        (plain(1), Usage(3, 20), Limits(None, 3, 20), ("max_transfers", 3, 3, 4)),
        (plain(1), Usage(2, 20), Limits(None, 3, 20), unfinished(20, 20, 25)),
        (said(1, 10**90), Usage(0, 0), Limits(None, 1, 20), unfinished(20, 0, 10**90)),
    ],
    ids=str,
)
def test_a_new_transfer_is_refused_where_there_is_no_place_for_it(
    request_: SegmentRequest, usage: Usage, limits: Limits, why: object
) -> None:
    assert decide(request_, Known(0), limits) is Fact.USAGE
    known = Known(0, usage=usage)
    if why is None:
        assert decide(request_, known, limits) is Step.BEGIN
    else:
        assert refused(request_, known, limits) == why


def test_a_next_segment_counts_with_its_own_bytes_alone() -> None:
    limits = Limits(max_transfers=1, max_unfinished_bytes=20)
    for request in (plain(3), said(3, 100)):
        assert decide(request, Known(2), limits) is Fact.USAGE
        assert decide(request, Known(2, usage=Usage(9, 15)), limits) is Step.APPEND
        known = Known(2, usage=Usage(9, 16))
        assert refused(request, known, limits) == unfinished(20, 16, 21)


def test_no_more_is_asked_of_a_next_segment_than_its_limits_need() -> None:
    assert decide(plain(3), Known(2), Limits(max_transfers=1)) is Step.APPEND


@pytest.mark.parametrize("limits", [Limits(None, 0, 0, "100%")], ids=["all"])
def test_a_last_segment_that_ends_a_transfer_is_taken_whatever_is_used(limits: Limits) -> None:
    assert decide(last(3), Known(2, content=RIGHT), limits) is Step.FINISH
    known = Known(2, content=WRONG, answered=False)
    refusal = decide(last(3), known, limits)
    assert isinstance(refusal, Refusal)
    assert isinstance(refusal.error, FileMismatchError)
    assert refusal.ends


@pytest.mark.parametrize("kept", [40, "4%", "4.0 %"])
@pytest.mark.parametrize(
    ("request_", "segments", "least"),
    [
        (plain(1), 0, 45),
        (said(1, 30), 0, 70),
        (last(1), 0, 45),
        (plain(3), 2, 25),
        (said(3, 30), 2, 25),
    ],
    ids=str,
)
def test_a_new_file_is_refused_before_a_segment_where_little_is_free(
    request_: SegmentRequest, segments: int, least: int, kept: int | str
) -> None:
    limits = Limits(min_free=kept)
    known = Known(segments, answered=False)
    assert decide(request_, known, limits) is Fact.SPACE
    known = Known(segments, answered=False, space=Space(least, 1000), content=RIGHT)
    taken = {0: Step.STORE if request_.store else Step.BEGIN, 2: Step.APPEND}
    assert decide(request_, known, limits) is taken[segments]
    known = Known(segments, answered=False, space=Space(least - 1, 1000), content=RIGHT)
    limit = 980 if segments else 960
    used = 1000 - (least - 1)
    assert refused(request_, known, limits) == ("min_free", limit, used, limit + 1)


def test_a_file_system_that_does_not_tell_its_size_is_none_that_is_full() -> None:
    known = Known(0, space=Space(0, 0))
    assert decide(plain(1), known, Limits(min_free=10)) is Step.BEGIN
