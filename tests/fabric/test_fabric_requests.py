"""Requests that no client of ours would send: refused in clear words, and a short line logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_link import Message

from txstore import FileStoreManager
from txstore.dxl import ServiceConfig
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.protocol import ErrorReply, Reply
from txstore.limits import Limits

SHA256_OF_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

VERSION = {"size": 4, "mtime_ns": 1, "sha256": "aa"}

#: What the fields of requests cannot be.
NOTHING_OF_A_VERSION: list[object] = [5, 0, False, [], "x", {}, "x" * 1_000_000]
NO_NUMBERS_OF_A_VERSION: list[object] = ["x", 1.5, 1e400, None, [], True, "9" * 5000]
NO_HASHES: list[object] = [None, 5, []]
NO_NUMBERS: list[object] = [-1, 1.5, "5", True, None, 2**63, 1e400, 10**30]
NO_FIELDS: dict[tuple[str, str], list[object]] = {
    ("status", "file_id"): [None, 5, True, "", [], "x" * 300, "\ud800", ["1e15"] * 200_000],
    ("list_files", "after"): [5, True, [], {}, "\ud800", ["1e15"] * 200_000],
    ("list_files", "limit"): NO_NUMBERS,
    ("get", "name"): [5, [], "", "..", "\ud800", "\0", "n" * 1_000_000, "\x01" * 160_000],
    ("get", "offset"): NO_NUMBERS,
    ("get", "length"): NO_NUMBERS,
    ("get", "version"): [
        *NOTHING_OF_A_VERSION,
        *({**VERSION, "size": value} for value in NO_NUMBERS_OF_A_VERSION),
        *({**VERSION, "mtime_ns": value} for value in NO_NUMBERS_OF_A_VERSION),
        *({**VERSION, "sha256": value} for value in NO_HASHES),
    ],
}

#: Payloads and fields of segments that cannot be.
NO_SEGMENTS: list[tuple[object, object]] = [
    *((payload, {"segment_number": "1"}) for payload in (5, [1], {"a": 1}, "text")),
    *((b"x", {"segment_number": number}) for number in (None, [1], "x", "9" * 5000)),
    (b"x", {"segment_number": "1", "file_id": {"a": 1}}),
    (b"x", {"segment_number": "1", "file_id": "i" * 1_000_000}),
    (b"x", {"segment_number": "1", "name": "n" * 1_000_000}),
    (b"x", {"segment_number": "1", "size": "9" * 5000}),
    (b"x", {"segment_number": "1", "size": 1e400}),
    (b"x", {"segment_number": "1", "result": "r\n" * 500_000}),
    *((b"x", None), (b"x", []), (b"x", "text")),
]


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    return ServiceConfig(str(tmp_path), str(tmp_path / "storage"))


@pytest.fixture
def manager(config: ServiceConfig) -> Iterator[FileStoreManager]:
    limits = Limits(max_file_size=10, max_transfers=1)
    with FileStoreManager(config.storage_dir, durability="none", limits=limits) as manager:
        yield manager


@pytest.fixture
def service(
    manager: FileStoreManager, config: ServiceConfig, caplog: pytest.LogCaptureFixture
) -> StoreHandlers:
    Path(config.storage_dir, "stored").write_bytes(b"data")
    caplog.set_level(logging.INFO)
    return StoreHandlers(manager, config)


def refusal(answer: Reply | ErrorReply, caplog: pytest.LogCaptureFixture) -> str:
    """The text of a refusal, which is short, as is the line that is logged."""
    assert isinstance(answer, ErrorReply), answer
    assert answer.fields["error"] == "refused", answer
    for text in (answer.text, *answer.fields.values()):
        assert len(text.encode()) < 5000
    (record,) = caplog.records
    assert record.exc_info is None
    assert len(record.getMessage()) < 5000
    assert "\n" not in record.getMessage()
    return answer.text


@pytest.mark.parametrize(
    "payload",
    [
        *(b"null", b"[]", b"5", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000),
        *(5, [1], {"a": 1}, "text", 1.5),
    ],
    ids=lambda payload: repr(payload)[:20],
)
@pytest.mark.parametrize("topic", ["status", "list_files", "get"])
def test_a_payload_that_is_no_object(
    service: StoreHandlers, caplog: pytest.LogCaptureFixture, topic: str, payload: Any
) -> None:
    answer = getattr(service, topic)(Message(payload, {}))
    assert "should be a JSON object" in refusal(answer, caplog)


@pytest.mark.parametrize(
    ("topic", "field", "value"),
    [(*place, value) for place, values in NO_FIELDS.items() for value in values],
    ids=lambda value: repr(value)[:20],
)
def test_a_field_that_cannot_be(
    service: StoreHandlers, caplog: pytest.LogCaptureFixture, topic: str, field: str, value: object
) -> None:
    request = {"name": "stored", field: value}
    answer = getattr(service, topic)(Message(json.dumps(request).encode(), {}))
    text = refusal(answer, caplog)
    assert field.removeprefix("file_") in text
    for inside in ("codec", "int()", "literal", "object is not", "indices"):
        assert inside not in text, "words of Python's"


@pytest.mark.parametrize("offset", [4, 5, 2**62, 2**63 - 1])
def test_beyond_a_files_end_there_is_nothing(service: StoreHandlers, offset: int) -> None:
    request = {"name": "stored", "offset": offset, "length": 3}
    answer = service.get(Message(json.dumps(request).encode(), {}))
    assert isinstance(answer, Reply), answer
    assert (answer.payload, answer.fields["offset"]) == (b"", str(offset))


def test_another_version_than_asked_for_is_said_in_words(service: StoreHandlers) -> None:
    request = {"name": "stored", "length": 3, "version": VERSION}
    answer = service.get(Message(json.dumps(request).encode(), {}))
    assert isinstance(answer, ErrorReply)
    assert answer.fields["error"] == "changed"
    assert answer.text == "The file 'stored' is another now. Get it again from its start"


@pytest.mark.parametrize(
    ("payload", "fields"),
    NO_SEGMENTS,
    ids=lambda value: repr(value)[:30],
)
def test_a_segment_that_cannot_be(
    manager: FileStoreManager,
    config: ServiceConfig,
    caplog: pytest.LogCaptureFixture,
    payload: Any,
    fields: Any,
) -> None:
    caplog.set_level(logging.INFO)
    service = StoreHandlers(manager, config)
    assert refusal(service.store(Message(payload, fields)), caplog)
    assert manager.transfers() == []


def test_no_id_or_name_makes_lines_of_its_own_in_the_log(
    service: StoreHandlers, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"segment_number": "1", "file_id": "id\nFAKE", "name": "name\nFAKE"}
    last = {**fields, "result": "store", "size": "1", "hash_sha256": SHA256_OF_X}
    for sent in (last, {**fields, "name": "../a\nFAKE"}, fields, {**fields, "result": "cancel"}):
        service.store(Message(b"x", sent))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["Stored", "Refused:", "Transfer"]
    assert "was cancelled at segment 1" in lines[-1]
    for line in lines:
        assert "\n" not in line
        assert "\\nFAKE" in line


def test_what_a_limit_refuses_is_named_in_the_log(
    manager: FileStoreManager, config: ServiceConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = StoreHandlers(manager, config)
    said = {"segment_number": "1", "file_id": "one", "name": "large.bin", "size": "11"}
    unsaid = {"segment_number": "1", "file_id": "two"}
    for payload, fields, text in (
        (b"x", said, "The file 'large.bin' with id 'one' is refused: files of at most 10 bytes"),
        (b"x" * 11, unsaid, "The file with id 'two' is refused: files of at most 10 bytes"),
        (b"x", unsaid, ""),
        (b"x" * 10, {**unsaid, "segment_number": "2"}, "The file with id 'two' is refused: files"),
        (b"x", {**said, "size": "10"}, "'large.bin' with id 'one' is refused: 1 transfers are"),
    ):
        caplog.clear()
        answer = service.store(Message(payload, fields))
        assert isinstance(answer, ErrorReply) == bool(text)
        assert [text in record.getMessage() for record in caplog.records] == [True] * bool(text)
    assert [transfer.file_id for transfer in manager.transfers()] == ["two"]
