"""Requests that are refused: by which check, with which facts; and that nothing changes."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
from collections import OrderedDict, UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support import (
    OpenStore,
    PlainMessage,
    at_each_level,
    claim,
    everything,
    message,
    outcome,
    over_every_engine,
    over_two_folders,
    published,
    request,
)

from txstore import FileStoreManager, errors
from txstore.errors import (
    FieldError,
    FileMismatchError,
    NameRefusedError,
    RepeatMismatchError,
    RequestError,
    SequenceError,
    TxStoreError,
)
from txstore.options import Level

pytestmark = over_every_engine

DATA = b"first--second--third"
PARTS = (b"first--", b"second--", b"third")
ABSENT = object()
#: A buffer whose owner has taken it back.
GONE = memoryview(b"third")
GONE.release()


@pytest.fixture
def store(manager: OpenStore) -> FileStoreManager:
    """A store with the transfer ``open`` at its second segment, a folder and a stored file."""
    return begin(manager("none"))


def begin(store: FileStoreManager) -> FileStoreManager:
    for number in (1, 2):
        store.store_segment(message(PARTS[number - 1], file_id="open", segment_number=str(number)))
    store.store_segment(message(b"x", segment_number="1", **claim(b"x", "folder/stored")))
    return store


def last(payload: Any = PARTS[2], **changes: Any) -> PlainMessage:
    """The message that would finish ``open``, with some fields changed or left out."""
    fields = {"file_id": "open", "segment_number": "3", **claim(DATA, "file.bin"), **changes}
    return PlainMessage(payload, {k: v for k, v in fields.items() if v is not ABSENT})


def refused(store: FileStoreManager, bad: PlainMessage) -> RequestError:
    """Send what is to be refused; nothing may change, and the error must be fit to be sent on."""
    before = everything(store)
    error = outcome(store.store_segment, bad)
    assert isinstance(error, RequestError), error
    assert isinstance(error, ValueError)
    assert everything(store) == before
    str(error).encode()  # it travels as UTF-8
    check_pickle(error)
    return error


def check_pickle(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert facts(other) == facts(error)


def facts(error: Exception) -> dict[str, Any]:
    """The public attributes of an error."""
    names = [name for name in dir(error) if not name.startswith("_") and hasattr(error, name)]
    values = {name: getattr(error, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


def finish(store: FileStoreManager) -> None:
    """The transfer was kept: it goes on as if the refused request had not been."""
    assert store.store_segment(last()).file_result == "store"
    assert published(store)["file.bin"] == DATA


# Each field


@pytest.mark.parametrize(
    "number",
    [
        ABSENT,
        None,
        "x",
        "",
        "1.0",
        "3 3",
        "0",
        "-1",
        0,
        -1,
        True,
        False,
        3.0,
        b"3",
        ["3"],
        "9" * 5000,
    ],
    ids=lambda value: "absent" if value is ABSENT else repr(value)[:12],
)
def test_a_segment_number_that_is_none_is_refused(store: FileStoreManager, number: Any) -> None:
    error = refused(store, last(segment_number=number))
    assert isinstance(error, FieldError)
    assert error.field == "segment_number"
    assert error.received == (None if number is ABSENT else number)
    assert "whole number from 1" in str(error)
    finish(store)


def test_a_number_too_long_for_pythons_text_is_refused_in_our_words(
    store: FileStoreManager,
) -> None:
    for number in (10**5000, -(10**5000)):
        error = refused(store, last(segment_number=number))
        assert error.__dict__["received"] == number
    error = refused(store, last(size=-(10**5000)))
    assert error.__dict__["field"] == "size"


@pytest.mark.parametrize(
    ("file_id", "rule"),
    [
        (7, "text, not int"),
        (True, "text, not bool"),
        (b"open", "text, not bytes"),
        (["open"], "text, not list"),
        ("a.b", "without '.', '/', '\\' and NUL"),
        ("..", "without '.', '/', '\\' and NUL"),
        ("a/b", "without '.', '/', '\\' and NUL"),
        ("a\\b", "without '.', '/', '\\' and NUL"),
        ("a\0b", "without '.', '/', '\\' and NUL"),
        ("a" * 256, "at most 255 characters long, not 256"),
        ("\N{GRINNING FACE}" * 256, "at most 255 characters long, not 256"),
        ("a\udc80b", "UTF-8"),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_id_that_cannot_be_one_is_refused(
    store: FileStoreManager, file_id: Any, rule: str
) -> None:
    for bad in (
        last(file_id=file_id),
        last(file_id=file_id, segment_number="1", result=ABSENT),
        message(file_id=file_id, result="cancel"),
    ):
        error = refused(store, bad)
        assert isinstance(error, FieldError)
        assert (error.field, error.received) == ("file_id", file_id)
        assert rule in str(error)
        assert "Choose another id" in str(error)
    for ask in (store.status, store.cancel):
        assert isinstance(outcome(ask, file_id), FieldError)
    finish(store)


@pytest.mark.parametrize("result", [ABSENT, None, ""], ids=["absent", "None", "empty"])
def test_a_later_segment_without_an_id_is_told_where_to_start(
    store: FileStoreManager, result: Any
) -> None:
    for file_id in (ABSENT, None, ""):
        error = refused(store, last(file_id=file_id, result=result))
        assert isinstance(error, SequenceError)
        assert (error.expected, error.received, error.file_id) == (1, 3, None)
        assert "segment 1" in str(error)
    finish(store)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (7, "not text"),
        (b"file", "not text"),
        (["file"], "not text"),
        ("a\0b", "NUL"),
        ("a\ud800b", "encoded"),
        ("..", "outside"),
        ("../file", "outside"),
        ("a/../../file", "outside"),
        ("/etc/file", "outside"),
        ("{storage}x/file", "outside"),
        (".", "the storage itself"),
        ("/{storage}", "the storage itself"),
        ("folder/..", "the storage itself"),
        (".workdir", "own folders"),
        (".workdir/file", "own folders"),
        ("folder/../.workdir/file", "own folders"),
        ("{storage}/.workdir/file", "own folders"),
        ("/{storage}/.workdir/file", "own folders"),
        (".txstore", "own folders"),
        (".txstore/staging/file", "own folders"),
        ("a/" * 2048 + "file", "too long"),
    ],
    ids=lambda value: repr(value)[:20],
)
@over_two_folders
def test_a_name_where_nothing_may_be_stored_is_refused(
    store: FileStoreManager, name: Any, reason: str
) -> None:
    if isinstance(name, str):
        name = name.replace("{storage}", store.storage_dir)
    for result in ("store", ABSENT):
        error = refused(store, last(name=name, result=result))
        assert isinstance(error, NameRefusedError)
        assert (error.name, error.file_id) == (name, "open")
        assert reason in error.reason
        assert reason in str(error)
        assert "another name" in str(error)
    finish(store)


@pytest.mark.parametrize(
    "size", ["x", "", "-1", -1, "20.0", 20.0, True, b"20", "9" * 5000], ids=lambda v: repr(v)[:12]
)
def test_a_malformed_size_is_refused_on_every_segment(store: FileStoreManager, size: Any) -> None:
    for result in ("store", ABSENT):
        error = refused(store, last(size=size, result=result))
        assert isinstance(error, FieldError)
        assert (error.field, error.received, error.file_id) == ("size", size, "open")
        assert "whole number from 0" in str(error)
    finish(store)


@pytest.mark.parametrize("field", ["name", "size", "hash_sha256"])
@pytest.mark.parametrize("value", [ABSENT, None, ""], ids=["absent", "None", "empty"])
def test_store_needs_name_size_and_hash(store: FileStoreManager, field: str, value: Any) -> None:
    error = refused(store, last(**{field: value}))
    assert isinstance(error, FieldError)
    assert (error.field, error.file_id) == (field, "open")
    assert repr(field) in str(error)
    finish(store)


@pytest.mark.parametrize(
    "value",
    ["0" * 63, "0" * 65, "g" * 64, "0x" + "0" * 62, "0" * 64 + "\n", b"0" * 64, 0, "\u0660" * 64],
    ids=lambda value: repr(value)[:12],
)
def test_a_hash_is_64_hex_digits(store: FileStoreManager, value: Any) -> None:
    error = refused(store, last(hash_sha256=value))
    assert isinstance(error, FieldError)
    assert (error.field, error.received) == ("hash_sha256", value)
    assert "64 hex digits" in str(error)
    finish(store)


@pytest.mark.parametrize(
    "result", ["STORE", "store ", "Cancel", "none", 0, False, b"store", ["store"]], ids=repr
)
def test_any_other_result_is_refused(store: FileStoreManager, result: Any) -> None:
    error = refused(store, last(result=result))
    assert isinstance(error, FieldError)
    assert (error.field, error.received) == ("result", result)
    assert "'store' or 'cancel'" in str(error)
    finish(store)


@pytest.mark.parametrize(
    "payload",
    ["third", 5, 5.0, True, ["third"], {"third": 1}, object(), memoryview(b"t-h-i-r-d")[::2], GONE],
    ids=lambda value: "released" if value is GONE else type(value).__name__,
)
def test_a_payload_that_is_no_buffer_is_refused(store: FileStoreManager, payload: Any) -> None:
    for result in ("store", ABSENT):
        error = refused(store, last(payload, result=result))
        assert isinstance(error, FieldError)
        assert (error.field, error.file_id) == ("payload", "open")
        assert type(payload).__name__ in str(error)
    finish(store)


class Bare:
    """A message without a payload."""

    other_fields = {"segment_number": "1"}  # noqa: RUF012 - as an application may have it


@pytest.mark.parametrize(
    "given", [None, "text", {"segment_number": "1"}, Bare()], ids=lambda it: type(it).__name__
)
def test_what_is_no_message_is_refused(store: FileStoreManager, given: Any) -> None:
    before = everything(store)
    error = outcome(store.store_segment, given)
    assert isinstance(error, FieldError)
    assert error.received is given
    assert type(given).__name__ in str(error)
    assert everything(store) == before
    finish(store)


@pytest.mark.parametrize(
    "fields", [None, [("segment_number", "1")], "segment_number=1", 7], ids=repr
)
def test_other_fields_must_be_a_mapping(store: FileStoreManager, fields: Any) -> None:
    error = refused(store, PlainMessage(b"x", fields))
    assert isinstance(error, FieldError)
    assert (error.field, error.received) == ("other_fields", fields)
    assert type(fields).__name__ in str(error)
    finish(store)


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
def test_any_mapping_will_do(store: FileStoreManager, kind: Any) -> None:
    answer = store.store_segment(PlainMessage(PARTS[2], kind(last().other_fields)))
    assert answer.to_dict() == {"file_id": "open", "segments_received": 3, "result": "store"}


def test_a_real_message_is_refused_alike(store: FileStoreManager) -> None:
    assert outcome(store.store_segment, request()).__dict__["field"] == "segment_number"
    fields = last().other_fields | {"segment_number": "7"}
    error = outcome(store.store_segment, request(PARTS[2], **fields))
    assert isinstance(error, SequenceError)
    assert (error.expected, error.received, error.file_id) == (3, 7, "open")
    assert store.store_segment(request(PARTS[2], **last().other_fields)).file_result == "store"


def test_an_error_for_a_message_without_an_id_names_none(store: FileStoreManager) -> None:
    """The store assigns one with the answer; before that no transfer has it."""
    for bad in (
        {"segment_number": "x"},
        {"name": "../x"},
        {"size": "x"},
        {"result": "x"},
        {"hash_sha256": "x"},
        {"name": "folder"},
        {"name": "folder/stored/x"},
        {"size": "4"},
    ):
        fields = {"segment_number": "1", **claim(b"123"), **bad}
        error = refused(store, message(b"123", **fields))
        assert error.file_id is None
    error = refused(store, message("text", segment_number="1"))
    assert error.file_id is None


# The sequence, at every level: what is told of the transfer, and that it is kept


@at_each_level
@pytest.mark.parametrize("result", [ABSENT, "store"], ids=["plain", "store"])
@pytest.mark.parametrize(
    ("number", "kind"),
    [(1, SequenceError), (2, RepeatMismatchError), (4, SequenceError), (99, SequenceError)],
)
def test_a_number_out_of_turn_is_told_which_one_is_next(
    manager: OpenStore, level: Level, number: int, kind: type[SequenceError], result: Any
) -> None:
    store = begin(manager(level))
    error = refused(store, last(segment_number=str(number), result=result))
    assert type(error) is kind
    assert isinstance(error, SequenceError)
    assert (error.expected, error.received, error.file_id) == (3, number, "open")
    assert f"Segment {'3' if kind is SequenceError else number}" in str(error)
    assert "Go on with segment 3" in str(error)
    finish(store)


@at_each_level
@pytest.mark.parametrize("result", [ABSENT, "store"], ids=["plain", "store"])
def test_a_later_segment_of_an_unknown_id_is_told_to_start(
    manager: OpenStore, level: Level, result: Any
) -> None:
    store = begin(manager(level))
    for file_id in ("unknown", "OPEN"):
        for number in (2, 3, 99):
            error = refused(store, last(file_id=file_id, segment_number=str(number), result=result))
            assert type(error) is SequenceError
            assert (error.expected, error.received, error.file_id) == (1, number, file_id)
            assert "no such transfer is known" in str(error)
            assert "Start at segment 1" in str(error)
    finish(store)


@at_each_level
def test_a_corrected_last_message_is_taken(manager: OpenStore, level: Level) -> None:
    store = begin(manager(level))
    refused(store, last(name="folder"))
    refused(store, last(name="folder/stored/file"))
    refused(store, last(name="new/" + "n" * 256))
    refused(store, last(name="n" * 256 + "/file"))
    refused(store, last(size=""))
    refused(store, last(hash_sha256=ABSENT))
    finish(store)


# The order of the checks

#: Faults in the order of their checks: what they change in a good message, and what the error of
#: each is known by.
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("segment number", {"segment_number": "x"}, "segment_number"),
    ("file id", {"file_id": "a.b"}, "file_id"),
    ("name", {"name": "../x"}, "outside"),
    ("size", {"size": "x"}, "size"),
    ("result", {"result": "x"}, "result"),
    ("hash", {"hash_sha256": "x"}, "hash_sha256"),
    ("payload", {"payload": "x"}, "payload"),
    ("sequence", {"segment_number": "9"}, "9"),
    ("disk", {"name": "folder"}, "a folder has that name"),
]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (one, two)
        for one, two in itertools.combinations(FAULTS, 2)
        if not one[1].keys() & two[1].keys()
    ],
    ids=lambda fault: fault[0],
)
def test_the_first_check_that_fails_decides(
    store: FileStoreManager,
    earlier: tuple[str, dict[str, Any], str],
    later: tuple[str, dict[str, Any], str],
) -> None:
    error = refused(store, last(**{"payload": PARTS[2], **later[1], **earlier[1]}))
    fact = {FieldError: "field", NameRefusedError: "reason", SequenceError: "received"}
    assert earlier[2] in str(getattr(error, fact[type(error)]))
    finish(store)


def test_of_a_cancel_only_the_id_is_checked(store: FileStoreManager) -> None:
    everything_else = {
        "segment_number": "x",
        "name": "../x",
        "size": "x",
        "hash_sha256": "x",
        "result": "cancel",
    }
    refused(store, PlainMessage("x", {"file_id": "a.b", **everything_else}))
    answer = store.store_segment(PlainMessage("x", {"file_id": "open", **everything_else}))
    assert answer.to_dict() == {"file_id": "open", "segments_received": 2, "result": "cancel"}


@pytest.mark.parametrize("call", ["status", "cancel"])
@pytest.mark.parametrize("file_id", [None, ""], ids=repr)
def test_who_names_a_transfer_must_name_one(
    store: FileStoreManager, call: str, file_id: Any
) -> None:
    before = everything(store)
    error = outcome(getattr(store, call), file_id)
    assert isinstance(error, FieldError), error
    assert (error.field, error.received) == ("file_id", file_id)
    assert everything(store) == before
    check_pickle(error)


# The errors


def every_error() -> list[type[TxStoreError]]:
    found = [
        kind
        for _name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, TxStoreError)
    ]
    assert len(found) > 15
    return found


#: A value for each parameter of the errors' constructors.
VALUES: dict[str, Any] = {
    "args": (),
    "message": "What to do.",
    "field": "size",
    "received": "x",
    "file_id": "an id",
    "name": "a name",
    "reason": "it is not liked",
    "expected": 3,
    "expected_size": 1,
    "received_size": 2,
    "expected_sha256": "0" * 64,
    "received_sha256": "1" * 64,
    "option": "mode",
    "storage_dir": "/storage",
    "working_dir": "/working",
    "path": "/working/journal.db",
    "timeout": 1.5,
    "consumer": "index",
    "lock": "journal",
    "call": "fsync of a folder",
    "length": 600,
    "offset": 4096,
    "number": 28,
    "what": "journal",
    "found": "0009",
    "supported": "0006",
    "extra": "cluster",
    "needs": "Such a store",
    "names": [("a name", "it is not liked")],
    "finished": True,
    "destination": "/backup",
    "command": "alembic upgrade head",
    "settings": ["fsync"],
    "fstype": "nfs4",
    "platform": "nt",
    "limit": 100,
    "used": 99,
    "wanted": 101,
    "problem": "names no broker",
    "text": "no words",
    "code": 0,
    "kind": "refused",
    "facts": {"expected": "3"},
}


def make(kind: type[TxStoreError]) -> TxStoreError:
    if not inspect.isfunction(kind.__init__):  # the builtin's
        return kind("What to do.")
    parameters = inspect.signature(kind).parameters.values()
    positional = [VALUES[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = {p.name: VALUES[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return kind(*positional, **named)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_survives_a_pickle(kind: type[TxStoreError]) -> None:
    check_pickle(make(kind))


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_carries_its_facts_as_attributes(kind: type[TxStoreError]) -> None:
    error = make(kind)
    facts = inspect.signature(kind.__init__).parameters.keys() if vars(kind) else set()
    for name in facts & VALUES.keys():
        if name not in ("args", "message", "number"):
            assert getattr(error, name) == VALUES[name], name
    if isinstance(error, OSError):
        assert isinstance(error.errno, int)
        assert error.strerror


def test_a_mismatch_tells_both_sizes_and_both_hashes(store: FileStoreManager) -> None:
    error = outcome(store.store_segment, last(size="21"))
    assert isinstance(error, FileMismatchError)
    assert (error.expected_size, error.received_size) == (21, 20)
    assert error.expected_sha256 == error.received_sha256 == claim(DATA)["hash_sha256"]
    assert error.file_id == "open"
    assert "send the file again from segment 1" in str(error)
    check_pickle(error)


def test_an_errors_text_stays_short_whatever_came(tmp_path: Path) -> None:
    """It goes into logs, and into answers, which hold a megabyte."""
    with FileStoreManager(tmp_path, durability="none") as store:
        huge = "n" * 1_000_000
        for fields in (
            {"segment_number": huge},
            {"segment_number": "1", "file_id": huge},
            {"segment_number": "1", "name": huge},
            {"segment_number": "1", "name": "../" + huge},
            {"segment_number": "1", "name": huge + "\0"},
            {"segment_number": "1", "size": huge},
            {"segment_number": "1", "result": huge},
            {"segment_number": "1", **claim(b"", "x"), "hash_sha256": huge},
        ):
            assert len(str(outcome(store.store_segment, message(**fields)))) < 1000
