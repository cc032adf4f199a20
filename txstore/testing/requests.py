"""Hypothesis strategies for single messages: those that stores take, and those that none does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from txstore.constants import FileStoreProp, FileStoreResultProp
from txstore.testing.messages import Message, Transfer
from txstore.testing.values import contents, file_ids, names

_NUMBER, _ID, _RESULT = FileStoreProp.SEGMENT_NUMBER, FileStoreProp.ID, FileStoreProp.RESULT
_NAME, _SIZE, _HASH = FileStoreProp.NAME, FileStoreProp.SIZE, FileStoreProp.HASH_SHA256


# --- accepted ----------------------------------------------------------------------------------


def valid_requests() -> st.SearchStrategy[Message]:
    """Messages that an empty store accepts, in every spelling that the contract allows: a first
    segment, a file in one segment, a cancel."""
    return st.one_of(_first_segments(), _whole_files(), _cancels())


@st.composite
def _first_segments(draw: st.DrawFn) -> Message:
    sent = {_NUMBER: draw(_spellings_of(1)), **draw(_ids()), **draw(_unknown_fields())}
    sent.update(draw(st.sampled_from([{}, {_RESULT: None}, {_RESULT: ""}])))
    if draw(st.booleans()):  # checked where they are present, and then not used
        sent.update({_NAME: draw(names()), _SIZE: draw(st.integers(0, 99)), _HASH: "unused"})
    return Message(draw(_payloads(draw(contents(max_size=600)))), sent)


@st.composite
def _whole_files(draw: st.DrawFn) -> Message:
    content = draw(contents(max_size=600))
    sha256 = hashlib.sha256(content).hexdigest()
    sent = {
        _NUMBER: draw(_spellings_of(1)),
        _RESULT: FileStoreResultProp.STORE,
        _NAME: draw(names()),
        _SIZE: draw(_spellings_of(len(content))),
        _HASH: draw(st.sampled_from([sha256, sha256.upper()])),
    }
    return Message(draw(_payloads(content)), {**sent, **draw(_ids()), **draw(_unknown_fields())})


@st.composite
def _cancels(draw: st.DrawFn) -> Message:
    sent = {_RESULT: FileStoreResultProp.CANCEL, **draw(_ids()), **draw(_unknown_fields())}
    # Only the id of a cancel is looked at.
    sent.update(draw(st.sampled_from([{}, {_NUMBER: "1"}, {_NUMBER: "x"}, {_NAME: "../out"}])))
    return Message(b"", sent)


def _ids() -> st.SearchStrategy[dict[str, Any]]:
    given = file_ids().map(lambda file_id: {_ID: file_id})
    return st.one_of(st.just({}), st.just({_ID: ""}), given)


def _spellings_of(number: int) -> st.SearchStrategy[Any]:
    return st.sampled_from([number, f"{number}", f" {number} ", f"0{number}", f"+{number}"])


def _unknown_fields() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{}, {"dxl.certs": "..."}, {"total_segments": "1"}])


def _payloads(content: bytes) -> st.SearchStrategy[Any]:
    forms: list[Any] = [content, bytearray(content), memoryview(content)]
    if not content:
        forms.append(None)
    return st.sampled_from(forms)


# --- refused -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvalidRequest:
    """A message that every store refuses with a ``ValueError``, whatever came before it.

    :ivar message: with one thing wrong
    :ivar field: the field that is wrong
    :ivar why: what is wrong, in words
    """

    message: Message
    field: str
    why: str


@dataclass(frozen=True)
class _Wrong:
    field: str
    why: str
    values: tuple[Any, ...]


_MISSING = object()

#: What no message may have.
_WRONG_ANYWHERE = (
    _Wrong("other_fields", "not a mapping", (None, "text", 7, ["file_id"])),
    _Wrong(_NUMBER, "missing", (_MISSING, None, "")),
    _Wrong(_NUMBER, "not a whole number", ("x", "1.0", "1,0", True, False, b"1", ["1"])),
    _Wrong(_NUMBER, "below 1", (0, "0", -1, "-1")),
    _Wrong(_ID, "not text", (7, b"id", ["id"], True)),
    _Wrong(_ID, "too long", ("x" * 256, "\u00e9" * 300)),
    _Wrong(_ID, "holds a separator or NUL", (".", "..", "a.b", "../a", "a/b", "/", "a\\b", "a\0b")),
    _Wrong(_ID, "cannot be encoded", ("\ud800", "a\udfff")),
    _Wrong(_NAME, "not text", (7, b"name", ["name"])),
    _Wrong(_NAME, "outside the storage", ("../a", "a/../../b", "/", "/etc/a", "..")),
    _Wrong(_NAME, "the storage itself", (".", "a/..", "./")),
    _Wrong(
        _NAME, "in the store's own folders", (".txstore/a", ".workdir", "./.workdir/journal.db")
    ),
    _Wrong(_NAME, "holds NUL", ("a\0b",)),
    _Wrong(_NAME, "too long", ("a/" * 3000 + "a",)),
    _Wrong(_SIZE, "not a whole number", ("x", "1.0", "", True, [1])),
    _Wrong(_SIZE, "negative", (-1, "-1")),
    _Wrong(_RESULT, "unknown", ("keep", "STORE", "Cancel", " store", 1)),
    _Wrong("payload", "not bytes", ("text", 7, ["bytes"], {}, memoryview(b"0123")[::2])),
)

#: What is wrong with a message that asks to store a file only.
_WRONG_IN_FINAL = (
    _Wrong(_NAME, "missing", (_MISSING, None, "")),
    _Wrong(_NAME, "a part too long", ("x" * 256, "x" * 256 + "/a")),
    _Wrong(_SIZE, "missing", (_MISSING, None)),
    _Wrong(_HASH, "missing", (_MISSING, None, "")),
    _Wrong(_HASH, "not 64 hex digits", ("0" * 63, "0" * 65, "g" * 64, " " + "0" * 63, 7)),
)


@st.composite
def invalid_requests(draw: st.DrawFn) -> InvalidRequest:
    """Messages with one thing wrong, for a store with the default working dir.

    What is right about them would be accepted: a first segment, or a file in one segment.
    """
    final = draw(st.booleans())
    content = draw(contents(max_size=600))
    file_id = str(draw(st.uuids(version=4)))
    transfer = Transfer("refused.bin", (content,) if final else (content, b""), file_id)
    message = transfer.message(1)
    wrong = draw(st.sampled_from([*_WRONG_ANYWHERE, *(_WRONG_IN_FINAL if final else ())]))
    return InvalidRequest(
        _spoiled(message, wrong.field, draw(st.sampled_from(wrong.values))), wrong.field, wrong.why
    )


def _spoiled(message: Message, field: str, value: Any) -> Message:
    if field == "payload":
        return Message(value, message.other_fields)
    if field == "other_fields":
        return Message(message.payload, value)
    sent = {**message.other_fields, field: value}
    if value is _MISSING:
        del sent[field]
    return Message(message.payload, sent)
