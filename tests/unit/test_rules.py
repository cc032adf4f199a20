"""The request table as a pure function: each line of it, fact by fact."""

from __future__ import annotations

import pytest

from txstore.errors import FileMismatchError, LimitError, RepeatMismatchError, SequenceError
from txstore.protocol.request import FileClaim, SegmentRequest
from txstore.protocol.rules import Fact, Known, Refusal, Step, decide

RIGHT, WRONG = (5, b"right" * 6 + b"ri"), (5, b"wrong" * 6 + b"wr")


def plain(number: int) -> SegmentRequest:
    return SegmentRequest("a", number, b"bytes")


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
    ],
    ids=str,
)
def test_what_a_request_gets(request_: SegmentRequest, known: Known, decided: Step | Fact) -> None:
    assert decide(request_, known) is decided


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
    refused = decide(request_, known)
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
    refused = decide(request_, known)
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, RepeatMismatchError)
    assert not refused.ends


@pytest.mark.parametrize(("segments", "ends"), [(0, False), (2, True)])
def test_wrong_content_ends_the_transfer_that_is_open(segments: int, ends: bool) -> None:
    refused = decide(last(segments + 1), Known(segments, content=WRONG, answered=False))
    assert isinstance(refused, Refusal)
    assert isinstance(refused.error, FileMismatchError)
    assert refused.ends is ends


OVER = LimitError("too large", option="max_file_size", limit=4, used=0, wanted=5, file_id="a")


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        (plain(1), Known(0, OVER)),
        (plain(3), Known(2, OVER)),
        (last(1), Known(0, OVER, answered=False)),
        (last(3), Known(2, OVER, answered=False)),
    ],
    ids=str,
)
def test_what_goes_beyond_a_limit_is_refused_and_ends_nothing(
    request_: SegmentRequest, known: Known
) -> None:
    assert decide(request_, known) == Refusal(OVER, ends=False)


@pytest.mark.parametrize("number", [1, 3])
def test_a_repeat_is_answered_whatever_the_limit_is_now(number: int) -> None:
    known = Known(number - 1, OVER)
    assert decide(last(number), known) is Fact.ANSWERED
    assert decide(last(number), Known(number - 1, OVER, answered=True)) is Step.ANSWER
