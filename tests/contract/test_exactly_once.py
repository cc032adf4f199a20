"""Promise 4: a message that comes again gets its answer again, and is carried out once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crew import apart
from seam import KillingDisk
from support import (
    LEVELS,
    Booted,
    OpenStore,
    PlainMessage,
    at_each_level,
    claim,
    everything,
    folders,
    message,
    outcome,
    over_every_engine,
    over_two_folders,
    published,
    request,
    send,
    sha256,
    staged,
    take_away,
    transfer_messages,
    tree,
)

from txstore import FileStoreManager
from txstore.errors import FileMismatchError, RepeatMismatchError, RequestError, SequenceError
from txstore.local.journal import schema
from txstore.options import Level

pytestmark = over_every_engine

DATA = random.Random("exactly once").randbytes(10_000)
OTHER = random.Random("something else").randbytes(10_000)

ONE, SEVERAL = 10_000, 4000  # bytes a segment: the file comes in one, or in three

in_one_and_in_several = pytest.mark.parametrize("size", [ONE, SEVERAL], ids=["one", "several"])


def changed(one: PlainMessage, **fields: Any) -> PlainMessage:
    """A message like another, with some fields changed."""
    return replace(one, other_fields={**one.other_fields, **fields})


def progress(store: FileStoreManager) -> dict[str, tuple[object, ...]]:
    """What is known of the unfinished transfers, but for the time of the last activity."""
    return {
        one.file_id: (one.segments_received, one.bytes_received, one.sha256, one.created_at)
        for one in store.transfers()
    }


def refused(store: FileStoreManager, bad: PlainMessage) -> RequestError:
    before = everything(store)
    error = outcome(store.store_segment, bad)
    assert isinstance(error, RequestError), error
    assert everything(store) == before
    return error


def answered(store: FileStoreManager, one: PlainMessage) -> dict[str, Any]:
    return store.store_segment(one).to_dict()


# The last recorded segment


@at_each_level
def test_each_segment_may_be_sent_any_number_of_times(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    for one in transfer_messages(DATA, 3000):
        first = store.store_segment(one).to_dict()
        before = progress(store), staged(store), published(store)
        for _ in range(3):
            assert store.store_segment(one).to_dict() == first
            assert (progress(store), staged(store), published(store)) == before
    assert published(store) == {"file.bin": DATA}
    assert staged(store) == []


@at_each_level
@pytest.mark.parametrize("other_level", ["segment", "none"])
def test_another_manager_gives_the_same_answer(
    manager: OpenStore, level: Level, other_level: str
) -> None:
    """Also one of another level, and after a restart of both."""
    for one in transfer_messages(DATA, 3000):
        first = manager(level).store_segment(one).to_dict()
        assert manager(other_level).store_segment(one).to_dict() == first
        assert manager(level).store_segment(one).to_dict() == first
    store = manager(level)
    assert published(store) == {"file.bin": DATA}
    assert (staged(store), store.transfers()) == ([], [])


def _send_in_a_process(storage: str, level: Level, one: PlainMessage) -> dict[str, Any]:
    with FileStoreManager(storage, durability=level) as store:
        return store.store_segment(one).to_dict()


@over_two_folders
def test_another_process_gives_the_same_answer(manager: OpenStore) -> None:
    store = manager("file")
    one, two, three = transfer_messages(DATA, SEVERAL)
    send(store, [one, two])
    for again in (two, three):
        first = store.store_segment(again).to_dict()
        assert apart(_send_in_a_process, store.storage_dir, "segment", again) == first
    assert published(store) == {"file.bin": DATA}


@at_each_level
@pytest.mark.parametrize("empty", [b"", None], ids=repr)
def test_an_empty_segment_may_be_repeated(manager: OpenStore, level: Level, empty: Any) -> None:
    store = manager(level)
    for number, payload in ((1, empty), (2, b"ab"), (3, empty)):
        one = message(payload, file_id="holes", segment_number=number)
        first = store.store_segment(one).to_dict()
        assert store.store_segment(one).to_dict() == first
    assert isinstance(
        refused(store, message(b"b", file_id="holes", segment_number=3)), RepeatMismatchError
    )
    last = message(empty, file_id="holes", segment_number=4, **claim(b"ab"))
    assert store.store_segment(last).to_dict() == store.store_segment(last).to_dict()
    assert published(store) == {"file.bin": b"ab"}


def but_for_activity(store: FileStoreManager) -> tuple[object, ...]:
    """The whole state of a store, but for when its transfers were last worked on."""
    *folders, tables = everything(store)
    assert isinstance(tables, dict)
    names = [column.name for column in schema.transfer.columns]
    rows = [dict(zip(names, row, strict=True)) for row in tables.pop("transfer")]
    for row in rows:
        for name in ("change", "updated_at", "ticks"):
            del row[name]
    return (*folders, tables, rows)


@over_two_folders
def test_a_repeat_in_other_words_is_the_same(manager: OpenStore) -> None:
    """Numbers as text or not, bytes in another buffer, fields that do not count."""
    store = manager("none")
    one, two, _ = transfer_messages(DATA, SEVERAL)
    send(store, [one, two])
    before = but_for_activity(store)
    for again in (
        changed(two, segment_number=2),
        changed(two, segment_number=" +02 "),
        changed(two, result=None, name=None),
        changed(two, result="", name="elsewhere", size="7", hash_sha256="x", extra="y"),
        replace(two, payload=bytearray(two.payload)),
        replace(two, payload=memoryview(two.payload)),
        request(two.payload, **two.other_fields),
    ):
        assert store.store_segment(again).to_dict() == {
            "file_id": "transfer",
            "segments_received": 2,
        }
    assert but_for_activity(store) == before


@at_each_level
@pytest.mark.parametrize(
    "other",
    [
        lambda _: b"",
        lambda _: None,
        lambda payload: payload[:-1],
        lambda payload: payload + b"\0",
        lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]),
        lambda payload: bytes([payload[0] ^ 1]) + payload[1:],
        lambda payload: payload[::-1],
        lambda _: DATA[:SEVERAL],  # the segment before
    ],
    ids=["empty", "None", "shorter", "longer", "last bit", "first bit", "reversed", "before"],
)
def test_the_same_number_with_other_bytes_is_refused(
    manager: OpenStore, level: Level, other: Callable[[bytes], Any]
) -> None:
    store = manager(level)
    one, two, three = transfer_messages(DATA, SEVERAL)
    send(store, [one, two])
    error = refused(store, replace(two, payload=other(two.payload)))
    assert isinstance(error, RepeatMismatchError)
    assert (error.expected, error.received, error.file_id) == (3, 2, "transfer")
    assert "Go on with segment 3" in str(error)
    assert store.store_segment(two).segments_received == 2
    assert store.store_segment(three).file_result == "store"
    assert published(store) == {"file.bin": DATA}


@at_each_level
def test_a_plain_segment_does_not_become_the_last_by_being_repeated(
    manager: OpenStore, level: Level
) -> None:
    store = manager(level)
    one, two, three = transfer_messages(DATA, SEVERAL)
    for sent, number in ((one, 1), (two, 2)):
        store.store_segment(sent)
        error = refused(store, changed(sent, **claim(DATA[: number * SEVERAL])))
        assert isinstance(error, RepeatMismatchError)
        assert (error.expected, error.received) == (number + 1, number)
    assert store.store_segment(three).file_result == "store"


@at_each_level
def test_only_the_last_recorded_number_may_be_repeated(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    messages = transfer_messages(DATA, 2000)
    send(store, messages[:3])
    for older in messages[:2]:
        error = refused(store, older)
        assert type(error) is SequenceError
        assert error.expected == 4
    store.store_segment(messages[2])


# The final message


@at_each_level
@in_one_and_in_several
def test_a_final_message_may_be_repeated_and_changes_nothing(
    manager: OpenStore, level: Level, size: int
) -> None:
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, size, name="folder/file")
    first = send(store, messages).to_dict()
    before = everything(store)
    for _ in range(3):
        assert store.store_segment(last).to_dict() == first
    assert everything(store) == before  # the very same file, not one like it
    for other in ("segment", "file", "none"):
        assert manager(other).store_segment(last).to_dict() == first
    assert published(store) == {"folder/file": DATA}


@at_each_level
@in_one_and_in_several
@over_two_folders
def test_a_final_message_in_other_words_is_the_same(
    manager: OpenStore, level: Level, size: int
) -> None:
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, size, name="folder/file")
    first = send(store, messages).to_dict()
    before = everything(store)
    for words in (
        {"name": "folder//file"},
        {"name": "./folder/./file"},
        {"name": "folder/x/../file"},
        {"name": os.path.join(store.storage_dir, "folder", "file")},
        {"hash_sha256": sha256(DATA).upper()},
        {"size": len(DATA)},
        {"size": " +010000 "},
        {"segment_number": int(last.other_fields["segment_number"])},
        {"extra": "field"},
    ):
        assert store.store_segment(changed(last, **words)).to_dict() == first
    assert everything(store) == before


@at_each_level
@pytest.mark.parametrize(
    "otherwise",
    [
        {"name": "other"},
        {"name": "folder/file2"},
        {"size": "9999"},
        {"hash_sha256": sha256(OTHER)},
        {"payload": DATA[8000:-1]},
        {"payload": OTHER[8000:]},
        {"payload": None},
        {"result": None},
        {"segment_number": "2"},
        {"segment_number": "4"},
        {"file_id": "other"},
    ],
    ids=str,
)
def test_a_final_message_with_anything_else_is_refused(
    manager: OpenStore, level: Level, otherwise: dict[str, Any]
) -> None:
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, SEVERAL, name="folder/file")
    send(store, messages)
    bad = changed(last, **{k: v for k, v in otherwise.items() if k != "payload"})
    if "payload" in otherwise:
        bad = replace(bad, payload=otherwise["payload"])
    error = refused(store, bad)
    assert isinstance(error, SequenceError)
    assert error.expected == 1
    assert store.store_segment(last).file_result == "store"


def test_with_one_segment_anything_else_is_another_file(manager: OpenStore) -> None:
    """Its id is free again, so what is not a repeat begins anew."""
    store = manager("none")
    [last] = transfer_messages(DATA, ONE, name="file")
    store.store_segment(last)
    assert store.store_segment(changed(last, name="other")).file_result == "store"
    assert published(store) == {"file": DATA, "other": DATA}
    assert store.store_segment(changed(last, result=None)).file_result is None
    assert progress(store)["transfer"][:2] == (1, len(DATA))
    error = refused(store, replace(last, payload=OTHER))
    assert isinstance(error, RepeatMismatchError)


@at_each_level
@in_one_and_in_several
@over_two_folders
def test_a_repeat_is_answered_for_as_long_as_completions_are_kept(
    manager: OpenStore, level: Level, size: int
) -> None:
    *_, last = messages = transfer_messages(DATA, size)
    store = manager(level)
    first = send(store, messages).to_dict()
    store.expire()
    manager(level, expire_after=0).expire()
    assert store.store_segment(last).to_dict() == first
    take_away(store, "file.bin")
    manager(level, keep_completed=0).expire()
    assert store.status("transfer") is None
    if size == ONE:  # it says all that there is to say: it is a new file
        assert store.store_segment(last).to_dict() == first
        assert published(store) == {"file.bin": DATA}
    else:
        error = outcome(store.store_segment, last)
        assert isinstance(error, SequenceError)
        assert error.expected == 1
        assert published(store) == {}


# What became of the file in the meantime


def remove(path: Path) -> None:
    path.unlink()


def rewrite(path: Path) -> None:
    path.write_bytes(OTHER)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace_by_its_like(path: Path) -> None:
    path.rename(path.with_name("moved away"))
    path.write_bytes(DATA)


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_name("moved away"))
    path.symlink_to("moved away")


@at_each_level
@pytest.mark.parametrize(
    "meddle", [remove, rewrite, append, replace_by_its_like, replace_by_a_link]
)
@over_two_folders
def test_several_segments_are_answered_whatever_became_of_the_file(
    manager: OpenStore, level: Level, meddle: Callable[[Path], None]
) -> None:
    """They cannot be asked for again, and the file is others' once it is published.  Who is asked
    may have another level than who stored it."""
    for number, finisher in enumerate(LEVELS):
        store = manager(finisher)
        name = f"file {number}"
        *_, last = messages = transfer_messages(DATA, SEVERAL, name=name, file_id=name)
        first = send(store, messages).to_dict()
        meddle(Path(store.storage_dir, name))
        before = tree(store.storage_dir)
        assert manager(level).store_segment(last).to_dict() == first
        assert store.store_segment(last).to_dict() == first
        assert tree(store.storage_dir) == before
        Path(store.storage_dir, "moved away").unlink(missing_ok=True)


@at_each_level
@pytest.mark.parametrize(
    "meddle", [remove, rewrite, append, replace_by_its_like, replace_by_a_link]
)
@over_two_folders
def test_one_segment_is_stored_again_if_the_file_is_not_as_published(
    manager: OpenStore, level: Level, meddle: Callable[[Path], None]
) -> None:
    store = manager(level)
    [last] = transfer_messages(DATA, ONE)
    first = store.store_segment(last).to_dict()
    meddle(Path(store.storage_dir, "file.bin"))
    assert store.store_segment(last).to_dict() == first
    assert published(store)["file.bin"] == DATA
    assert not Path(store.storage_dir, "file.bin").is_symlink()
    # From then on it is there again, as published.
    before = everything(store)
    assert store.store_segment(last).to_dict() == first
    assert everything(store) == before


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("later", [ONE, SEVERAL], ids=["later one", "later several"])
@pytest.mark.parametrize("file_id", ["transfer", "another"])
def test_a_repeat_never_comes_over_what_was_published_later(
    manager: OpenStore, level: Level, size: int, later: int, file_id: str
) -> None:
    """The later file may be another sender's, or the same id's."""
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, size)
    first = send(store, messages).to_dict()
    send(store, transfer_messages(OTHER, later, file_id=file_id))
    before = everything(store)
    assert store.store_segment(last).to_dict() == first
    assert everything(store) == before
    # Also when somebody removed the later one: it was the last word under that name.
    take_away(store, "file.bin")
    assert store.store_segment(last).to_dict() == first
    assert published(store) == {}


@at_each_level
@in_one_and_in_several
def test_a_repeat_is_known_among_several_files_of_one_id(
    manager: OpenStore, level: Level, size: int
) -> None:
    store = manager(level)
    lasts = []
    for turn in range(3):
        *begun, last = transfer_messages(DATA[turn:], size, name=f"file {turn}")
        first = send(store, [*begun, last]).to_dict()
        lasts.append((last, first))
    before = everything(store)
    for last, first in lasts:
        assert store.store_segment(last).to_dict() == first
    assert everything(store) == before


# While a newer transfer with the id is open


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("newer", [1, 2, 3, 4])
def test_a_final_message_is_known_while_a_newer_transfer_is_open(
    manager: OpenStore, level: Level, size: int, newer: int
) -> None:
    """Whatever the newer one's number is: before, at, and after that of the repeat."""
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, size)
    first = send(store, messages).to_dict()
    others = transfer_messages(OTHER, 2000, name="newer")
    send(store, others[:newer])
    before = everything(store)
    assert store.store_segment(last).to_dict() == first
    assert manager(level).store_segment(last).to_dict() == first
    assert everything(store) == before
    assert send(store, others[newer:]).file_result == "store"
    assert published(store) == {"file.bin": DATA, "newer": OTHER}
    assert store.store_segment(last).to_dict() == first
    assert store.store_segment(others[-1]).file_result == "store"


@at_each_level
def test_a_repeat_leaves_nothing_behind_in_the_newer_transfer(
    manager: OpenStore, level: Level
) -> None:
    """Another worker goes on with as many bytes as the repeat had, but others."""
    store, other = manager(level), manager("none")
    *_, last = messages = transfer_messages(DATA, SEVERAL)
    send(store, messages)
    newer = transfer_messages(OTHER + OTHER, len(last.payload), name="newer")
    send(store, newer[:2])
    store.store_segment(last)
    other.store_segment(newer[2])
    send(store, newer[3:])
    assert published(store) == {"file.bin": DATA, "newer": OTHER + OTHER}


@pytest.mark.parametrize("level", ["segment", "file"])
def test_what_a_repeat_was_answered_for_is_known_after_a_reboot(
    manager: OpenStore, level: Level
) -> None:
    """It was stored at level "none", and replaced by a file that is durable; who is told that it
    is not known sends it once more, over the newer file."""
    before, after = Booted("one"), Booted("two")
    *_, last = messages = transfer_messages(DATA, SEVERAL)
    send(manager("none", disk=before), messages)
    send(manager(level, disk=before), transfer_messages(OTHER, SEVERAL, file_id="newer"))
    assert manager(level, disk=before).store_segment(last).file_result == "store"
    status = manager(level, disk=after).status("transfer")
    assert status is not None
    assert status.state == "stored"


@at_each_level
def test_what_is_no_repeat_is_the_newer_transfers(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    *_, last = messages = transfer_messages(DATA, SEVERAL)
    send(store, messages)
    others = transfer_messages(OTHER, 4000)
    send(store, others[:2])
    # The number that comes next, and no exact repeat: it ends the newer transfer.
    error = outcome(store.store_segment, changed(last, name="other"))
    assert isinstance(error, FileMismatchError)
    assert store.status("transfer").state == "stored"  # type: ignore[union-attr]
    assert progress(store) == {}
    assert store.store_segment(last).file_result == "store"


def test_the_same_file_again_under_the_same_id_is_one_file(manager: OpenStore) -> None:
    """A sender that begins at segment 1 again gets through, and its end is what it was."""
    store = manager("none")
    messages = transfer_messages(DATA, SEVERAL)
    assert [store.store_segment(one).to_dict() for one in messages] == [
        store.store_segment(one).to_dict() for one in messages
    ]
    assert published(store) == {"file.bin": DATA}
    assert (staged(store), store.transfers()) == ([], [])


# Without an id


@at_each_level
def test_without_an_id_nothing_is_a_repeat(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    plain = [store.store_segment(message(b"1", segment_number="1")) for _ in range(3)]
    assert len({answer.file_id for answer in plain}) == 3
    assert len(store.transfers()) == 3
    whole = [
        store.store_segment(message(DATA, segment_number="1", **claim(DATA))) for _ in range(3)
    ]
    assert len({answer.file_id for answer in whole}) == 3
    assert published(store) == {"file.bin": DATA}


# At the same time


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make calls in threads that start at once; their outcomes."""
    barrier = threading.Barrier(len(calls))
    outcomes: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        barrier.wait(60)
        outcomes[index] = outcome(calls[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


@at_each_level
@in_one_and_in_several
def test_repeats_at_the_same_time_are_carried_out_once(
    manager: OpenStore, level: Level, size: int
) -> None:
    stores = [manager(level), manager("none")]
    for one in transfer_messages(DATA, size):
        answers = together([partial(answered, store, one) for store in stores * 3])
        assert all(answer == answers[0] for answer in answers), answers
        assert isinstance(answers[0], dict)
    assert published(stores[0]) == {"file.bin": DATA}
    assert staged(stores[0]) == []


def test_of_two_segments_with_one_number_one_is_taken(manager: OpenStore) -> None:
    stores = [manager("none"), manager("none")]
    send(stores[0], transfer_messages(DATA, SEVERAL)[:1])
    for number in range(2, 12):
        rivals = [
            message(payload, file_id="transfer", segment_number=number)
            for payload in (b"this", b"that")
        ]
        outcomes = together([partial(answered, s, m) for s, m in zip(stores, rivals, strict=True)])
        kinds = sorted(type(one).__name__ for one in outcomes)
        assert kinds == ["RepeatMismatchError", "dict"]
        [taken] = [m for m, one in zip(rivals, outcomes, strict=True) if isinstance(one, dict)]
        assert staged(stores[0])[0].endswith(taken.payload)


# Where the answer was lost because the worker died


def _finish_and_die(storage: str, level: Level, moment: str, last: PlainMessage) -> None:
    """Right before or after the file gets its name."""
    disk = KillingDisk(1, "rename", "file", after=moment == "after")
    FileStoreManager(storage, durability=level, disk=disk).store_segment(last)


def die_while_finishing(storage: str, level: Level, moment: str, last: PlainMessage) -> None:
    # Forked, which is quick; managers may be open on both sides.
    process = multiprocessing.get_context("fork").Process(
        target=_finish_and_die, args=(storage, level, moment, last)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_repeat_after_a_worker_died_finishing_stores_the_file_once(
    tmp_path: Path, level: Level, size: int, moment: str
) -> None:
    *begun, last = transfer_messages(DATA, size, name="folder/file")
    with FileStoreManager(tmp_path, durability=level) as store:
        for one in begun:
            store.store_segment(one)
    die_while_finishing(str(tmp_path), level, moment, last)
    with FileStoreManager(tmp_path, durability=level) as store:
        answer = store.store_segment(last)
        assert answer.to_dict() == {
            "file_id": "transfer",
            "segments_received": len(begun) + 1,
            "result": "store",
        }
        assert published(store) == {"folder/file": DATA}
        assert folders(store) == {"folder"}
        assert store.transfers() == []
        before = published(store), everything(store)
        assert store.store_segment(last).to_dict() == answer.to_dict()
        assert (published(store), everything(store)) == before


@at_each_level
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("open_before", [True, False], ids=["live manager", "after a restart"])
def test_what_a_dead_worker_left_never_comes_over_a_newer_file(
    tmp_path: Path, level: Level, moment: str, open_before: bool
) -> None:
    """Not when its transfer is taken up again, nor when the store is opened; and under another
    name for the same place the newer one stays all the same."""
    *begun, last = transfer_messages(DATA, SEVERAL, name="link/file")
    newer = transfer_messages(OTHER, SEVERAL, name="real/file", file_id="newer")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with FileStoreManager(tmp_path, durability=level) as store:
        send(store, begun)
    if open_before:
        with FileStoreManager(tmp_path, durability="none") as live:
            die_while_finishing(str(tmp_path), level, moment, last)
            send(live, newer)
            assert published(live) == {"real/file": OTHER}
    else:
        die_while_finishing(str(tmp_path), level, moment, last)
    with FileStoreManager(tmp_path, durability=level) as store:
        if not open_before:
            assert published(store) == {"real/file": DATA}  # settled at open, nobody asking
            send(store, newer)
        assert published(store) == {"real/file": OTHER}
        assert store.store_segment(last).file_result == "store"
        assert published(store) == {"real/file": OTHER}
        store.cancel("transfer")
        assert published(store) == {"real/file": OTHER}
