"""What every request gets, row by row: what is accepted, and what comes of it."""

from __future__ import annotations

import array
import mmap
import random
import re
from typing import Any

import pytest
from support import (
    OpenStore,
    at_each_level,
    claim,
    everything,
    folders,
    message,
    outcome,
    over_every_engine,
    published,
    request,
    send,
    sha256,
    staged,
    transfer_messages,
)

from txstore import FileStoreManager, FileStoreResultProp
from txstore.errors import FileMismatchError, SequenceError
from txstore.options import Level

pytestmark = over_every_engine

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
DATA = random.Random("request table").randbytes(10_000)


@pytest.fixture
def store(manager: OpenStore) -> FileStoreManager:
    return manager("none")


def received(store: FileStoreManager, file_id: str) -> tuple[int, int]:
    """Segments and bytes of an unfinished transfer."""
    found = store.status(file_id)
    assert found is not None
    assert found.state == "receiving"
    return found.segments_received, found.bytes_received


# Segment numbers


@pytest.mark.parametrize(
    "write",
    [
        int,
        str,
        " {} ".format,
        "\t{}\n".format,
        "0{}".format,
        "000{}".format,
        "+{}".format,
        "0_{}".format,
        lambda number: chr(0x0660 + number),  # Arabic-Indic digits
    ],
    ids=["int", "str", "spaces", "blanks", "zero", "zeros", "plus", "underscore", "arabic"],
)
def test_any_text_that_int_takes_is_a_segment_number(store: FileStoreManager, write: Any) -> None:
    for number, one in enumerate(transfer_messages(DATA, 3000), 1):
        one.other_fields["segment_number"] = write(number)
        answer = store.store_segment(one)
        assert answer.segments_received == number
        assert type(answer.segments_received) is int
    assert published(store) == {"file.bin": DATA}


# File ids


@pytest.mark.parametrize(
    "file_id",
    [
        "x",
        "0",
        " ",
        "\n",
        "a b",
        "a:b*c?d|e<f>g\"h'i",
        "%2e%2e%2f",
        "-rf",
        "ü\N{GRINNING FACE}\u0301",
        "\x7f\x01",
        "x" * 255,
        "\N{GRINNING FACE}" * 255,
        "workdir",
        "staging",
        "journal",
    ],
    ids=lambda value: repr(value)[:14],
)
def test_an_id_is_the_clients_to_choose_and_is_echoed(manager: OpenStore, file_id: str) -> None:
    one, two, three = transfer_messages(DATA, 4000, file_id=file_id)
    assert manager("none").store_segment(one).file_id == file_id
    assert received(manager("none"), file_id) == (1, 4000)
    assert [found.file_id for found in manager("none").transfers()] == [file_id]
    assert manager("none").store_segment(two).to_dict() == {
        "file_id": file_id,
        "segments_received": 2,
    }
    assert manager("none").store_segment(three).to_dict() == {
        "file_id": file_id,
        "segments_received": 3,
        "result": "store",
    }


def test_the_case_of_an_id_matters(store: FileStoreManager) -> None:
    for file_id in ("case", "Case", "CASE"):
        answer = store.store_segment(message(b"", file_id=file_id, segment_number="1"))
        assert answer.to_dict() == {"file_id": file_id, "segments_received": 1}
    assert store.cancel("Case").segments_received == 1
    assert {found.file_id for found in store.transfers()} == {"case", "CASE"}


@pytest.mark.parametrize("absent", [{}, {"file_id": None}, {"file_id": ""}], ids=str)
def test_without_an_id_the_store_assigns_one(store: FileStoreManager, absent: Any) -> None:
    answers = [store.store_segment(message(b"12", segment_number="1", **absent)) for _ in range(3)]
    ids = {answer.file_id for answer in answers}
    assert len(ids) == 3
    for file_id in ids:
        assert UUID4.match(file_id)
        assert received(store, file_id) == (1, 2)
        answer = store.store_segment(message(b"3", segment_number="2", file_id=file_id))
        assert answer.to_dict() == {"file_id": file_id, "segments_received": 2}


@at_each_level
def test_an_id_is_free_again_after_store_and_after_cancel(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    for turn in range(3):
        data = DATA[turn:]
        send(store, transfer_messages(data, 4000, name=f"file-{turn}"))
        assert published(store)[f"file-{turn}"] == data
        send(store, transfer_messages(DATA, 4000)[:2])
        assert received(store, "transfer") == (2, 8000)
        assert store.store_segment(message(file_id="transfer", result="cancel")).to_dict() == {
            "file_id": "transfer",
            "segments_received": 2,
            "result": "cancel",
        }
    assert len(published(store)) == 3


# Payloads


def a_map() -> mmap.mmap:
    made = mmap.mmap(-1, 6)
    made[:] = b"abcdef"
    return made


@pytest.mark.parametrize(
    "payload",
    [
        b"abcdef",
        bytearray(b"abcdef"),
        memoryview(b"abcdef"),
        memoryview(b"abcdef").cast("B", [2, 3]),
        memoryview(b"-abcdef-")[1:7],
        array.array("H", b"abcdef"),
        a_map(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_contiguous_buffer_is_a_payload_counted_in_bytes(
    store: FileStoreManager, payload: Any
) -> None:
    store.store_segment(message(payload, file_id="buffer", segment_number="1"))
    assert received(store, "buffer") == (1, 6)
    fields = claim(b"abcdef" * 2)
    answer = store.store_segment(message(payload, file_id="buffer", segment_number="2", **fields))
    assert answer.file_result == "store"
    assert published(store) == {"file.bin": b"abcdef" * 2}


def test_a_payload_may_be_used_again_after_the_answer(store: FileStoreManager) -> None:
    buffer = bytearray(b"1111")
    store.store_segment(message(buffer, file_id="buffer", segment_number="1"))
    buffer[:] = b"2222"
    fields = claim(b"11112222")
    store.store_segment(message(buffer, file_id="buffer", segment_number="2", **fields))
    assert published(store) == {"file.bin": b"11112222"}


@at_each_level
@pytest.mark.parametrize("empty", [b"", None, bytearray()], ids=repr)
def test_an_empty_segment_counts(manager: OpenStore, level: Level, empty: Any) -> None:
    store = manager(level)
    for number, payload in enumerate((empty, b"ab", empty, empty, b"c"), 1):
        answer = store.store_segment(message(payload, file_id="holes", segment_number=str(number)))
        assert answer.segments_received == number
    assert received(store, "holes") == (5, 3)
    fields = claim(b"abc")
    answer = store.store_segment(message(empty, file_id="holes", segment_number="6", **fields))
    assert answer.to_dict() == {"file_id": "holes", "segments_received": 6, "result": "store"}
    assert published(store) == {"file.bin": b"abc"}


@at_each_level
@pytest.mark.parametrize("segments", [1, 2, 3])
def test_an_empty_file_is_stored_and_its_hash_checked(
    manager: OpenStore, level: Level, segments: int
) -> None:
    store = manager(level)

    def send_with(hash_sha256: str) -> object:
        for number in range(1, segments):
            store.store_segment(message(None, file_id="empty", segment_number=str(number)))
        fields = {**claim(b""), "hash_sha256": hash_sha256}
        last = message(None, file_id="empty", segment_number=str(segments), **fields)
        return outcome(store.store_segment, last)

    error = send_with(sha256(b"not empty"))
    assert isinstance(error, FileMismatchError)
    assert error.received_sha256 == sha256(b"")
    assert published(store) == {}
    assert store.status("empty") is None
    send_with(sha256(b""))
    assert published(store) == {"file.bin": b""}


# What a plain segment may carry


@pytest.mark.parametrize("result", [{}, {"result": None}, {"result": ""}], ids=str)
def test_a_segment_without_a_result_is_plain(store: FileStoreManager, result: Any) -> None:
    fields = {k: v for k, v in claim(b"all of it").items() if k != "result"}
    answer = store.store_segment(message(b"all of it", segment_number="1", **fields, **result))
    assert answer.file_result is FileStoreResultProp.NONE
    assert answer.to_dict() == {"file_id": answer.file_id, "segments_received": 1}
    assert published(store) == {}
    assert received(store, answer.file_id) == (1, 9)


@pytest.mark.parametrize(
    "unused",
    [
        {"name": "other", "size": "0"},
        {"name": None, "size": None, "hash_sha256": None},
        {"name": ""},
        {"hash_sha256": "not a hash"},
        {"hash_sha256": 7},
        {"total_segments": "many", "hashes": None, "dxl.certs": "a broker's", "": "x", "a/b": []},
    ],
    ids=str,
)
def test_what_a_plain_segment_does_not_need_is_not_used(
    store: FileStoreManager, unused: Any
) -> None:
    *plain, last = transfer_messages(DATA, 3000, name="right")
    for one in plain:
        one.other_fields.update(unused)
        store.store_segment(one)
    store.store_segment(last)
    assert published(store) == {"right": DATA}


def test_unknown_fields_are_ignored_on_every_message(store: FileStoreManager) -> None:
    for one in transfer_messages(DATA, 3000):
        one.other_fields.update({"dxl.certs": "x", "path": "/etc", 7: 8})
        store.store_segment(one)
    assert published(store) == {"file.bin": DATA}


# Store


@at_each_level
@pytest.mark.parametrize("size", [500, 5000, 9999, 10_000])
def test_a_file_in_any_number_of_real_messages_is_stored_whole(
    manager: OpenStore, level: Level, size: int
) -> None:
    store, other = manager(level), manager("none")
    for number, one in enumerate(transfer_messages(DATA, size), 1):
        answer = store.store_segment(request(one.payload, **one.other_fields))
        assert answer.segments_received == number
        assert answer.file_result == one.other_fields.get("result")
    assert published(other) == {"file.bin": DATA}
    assert staged(other) == []
    assert other.transfers() == []
    done = other.status("transfer")
    assert done is not None
    assert (done.state, done.segments_received) == ("stored", answer.segments_received)
    assert (done.bytes_received, done.sha256) == (len(DATA), sha256(DATA))


@at_each_level
@pytest.mark.parametrize("given", [{}, {"file_id": "mine"}], ids=["no id", "id"])
def test_one_call_stores_a_file(manager: OpenStore, level: Level, given: dict[str, str]) -> None:
    store = manager(level)
    answer = store.store_segment(request(b"all", segment_number="1", **given, **claim(b"all")))
    assert answer.to_dict() == {
        "file_id": given.get("file_id", answer.file_id),
        "segments_received": 1,
        "result": "store",
    }
    assert given or UUID4.match(answer.file_id)
    assert published(store) == {"file.bin": b"all"}
    assert (staged(store), store.transfers()) == ([], [])


@pytest.mark.parametrize(
    "spelling",
    [
        {"size": 10_000},
        {"size": " 10000 "},
        {"size": "+010_000"},
        {"hash_sha256": sha256(DATA).upper()},
        {"hash_sha256": sha256(DATA).title()},
    ],
    ids=lambda value: next(iter(value)),
)
def test_size_and_hash_may_be_spelled_otherwise(store: FileStoreManager, spelling: Any) -> None:
    *plain, last = transfer_messages(DATA, 4000)
    send(store, plain)
    last.other_fields.update(spelling)
    assert store.store_segment(last).file_result == "store"


@at_each_level
@pytest.mark.parametrize("size", [10_000, 4000], ids=["one segment", "three segments"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "9999"},
        {"size": "0"},
        {"size": str(2**63 - 1)},
        {"hash_sha256": sha256(b"other")},
        {"size": "1", "hash_sha256": sha256(b"other")},
        {"size": "8000", "hash_sha256": sha256(DATA[:8000])},
    ],
    ids=["less", "none", "huge", "hash", "both", "without the last segment"],
)
def test_a_last_message_that_does_not_match_ends_the_transfer(
    manager: OpenStore, level: Level, size: int, wrong: dict[str, str]
) -> None:
    store = manager(level)
    send(store, transfer_messages(b"bystander", 5, name="other", file_id="other")[:1])
    messages = transfer_messages(DATA, size, name="new/file.bin")
    messages[-1].other_fields.update(wrong)
    error = outcome(send, store, messages)
    assert isinstance(error, FileMismatchError)
    stated = messages[-1].other_fields
    assert (error.expected_size, error.expected_sha256) == (
        int(stated["size"]),
        stated["hash_sha256"],
    )
    assert (error.received_size, error.received_sha256) == (len(DATA), sha256(DATA))
    assert error.file_id == "transfer"

    assert store.status("transfer") is None
    assert staged(store) == [b"bysta"]
    assert folders(store) == set()
    if len(messages) > 1:
        again = outcome(manager(level).store_segment, messages[-1])
        assert isinstance(again, SequenceError)
        assert again.expected == 1
    # From the start it can be sent again.
    send(manager(level), transfer_messages(DATA, size, name="new/file.bin"))
    assert published(store) == {"new/file.bin": DATA}


# Cancel


@at_each_level
def test_cancel_drops_an_unfinished_transfer(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    send(store, transfer_messages(DATA, 4000, file_id="bystander")[:1])
    send(store, transfer_messages(DATA, 4000)[:2])
    answer = manager(level).store_segment(request(file_id="transfer", result="cancel"))
    assert answer.to_dict() == {"file_id": "transfer", "segments_received": 2, "result": "cancel"}
    assert store.status("transfer") is None
    assert staged(store) == [DATA[:4000]]
    error = outcome(store.store_segment, transfer_messages(DATA, 4000)[2])
    assert isinstance(error, SequenceError)
    assert error.expected == 1


@at_each_level
def test_cancel_of_an_unknown_id_creates_nothing(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    send(store, transfer_messages(DATA, 4000)[:2])
    before = everything(store)
    for _ in range(2):
        answer = store.store_segment(message(file_id="unknown", result="cancel"))
        assert answer.to_dict() == {
            "file_id": "unknown",
            "segments_received": 0,
            "result": "cancel",
        }
    assert store.cancel("unknown").to_dict() == answer.to_dict()
    assert everything(store) == before


@at_each_level
@pytest.mark.parametrize("size", [10_000, 4000], ids=["one segment", "three segments"])
def test_cancel_of_a_finished_transfer_leaves_file_and_record(
    manager: OpenStore, level: Level, size: int
) -> None:
    store = manager(level)
    messages = transfer_messages(DATA, size)
    first = send(store, messages).to_dict()
    before = everything(store)
    answer = store.store_segment(message(file_id="transfer", result="cancel"))
    assert answer.to_dict() == {"file_id": "transfer", "segments_received": 0, "result": "cancel"}
    assert everything(store) == before
    assert store.store_segment(messages[-1]).to_dict() == first


@pytest.mark.parametrize("absent", [{}, {"file_id": None}, {"file_id": ""}], ids=str)
def test_cancel_without_an_id_answers_a_fresh_one(store: FileStoreManager, absent: Any) -> None:
    send(store, transfer_messages(DATA, 4000)[:2])
    before = everything(store)
    answers = [store.store_segment(message(result="cancel", **absent)) for _ in range(2)]
    for answer in answers:
        assert UUID4.match(answer.file_id)
        assert (answer.segments_received, answer.file_result) == (0, "cancel")
    assert answers[0].file_id != answers[1].file_id
    assert everything(store) == before


# Two transfers that want one name


@at_each_level
@pytest.mark.parametrize("first", [4000, 10_000], ids=["three segments", "one segment"])
@pytest.mark.parametrize("second", [4000, 10_000], ids=["three segments", "one segment"])
def test_of_two_files_under_one_name_the_last_acknowledged_stays(
    manager: OpenStore, level: Level, first: int, second: int
) -> None:
    *begun, end = transfer_messages(DATA, first, name="a/name", file_id="first")
    others = transfer_messages(DATA[::-1], second, name="a//./name", file_id="second")
    store, other = manager(level), manager("none")
    send(store, [*begun, *others[:-1], end])
    assert published(store) == {"a/name": DATA}
    other.store_segment(others[-1])
    assert published(store) == {"a/name": DATA[::-1]}
    # The repeat of what was overwritten since is answered, and does not bring it back.
    assert store.store_segment(end).file_result == "store"
    assert published(store) == {"a/name": DATA[::-1]}
