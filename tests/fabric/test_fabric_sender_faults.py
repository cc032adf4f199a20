"""The sender against every order of faults, without a broker: the fabric is a function call."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_link import Handler, LocalLink, Message, local

from txstore.dxl import (
    FabricError,
    FileChangedError,
    FileFetcher,
    FileSender,
    GaveUpError,
    InterruptedSendError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
)
from txstore.dxl import link as link_module
from txstore.dxl.protocol import LARGEST_SEGMENT, STORE_TOPIC, ErrorReply, Reply, Topics, json_reply
from txstore.limits import Limits

FULL = os.environ.get("TXSTORE_FULL") == "1"
FAULTS = ["none", "lost request", "lost answer", "unavailable", "restart", "stop"]


@pytest.fixture(autouse=True, scope="module")
def _no_pauses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "FIRST_PAUSE", 0.0)
        yield


@settings(max_examples=1000 if FULL else 50, deadline=None)
@given(
    size=st.integers(0, 50),
    segment_sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    faults=st.lists(st.sampled_from(FAULTS), max_size=40),
)
def test_arrives_through_any_faults(size: int, segment_sizes: list[int], faults: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(bytes(range(size)))
        storage = Path(folder, "storage")
        with local(storage, *faults) as link:
            started = 0
            while True:
                segment_size = segment_sizes[started % len(segment_sizes)]
                started += 1
                try:
                    sent = FileSender(link, segment_size=segment_size).send(path, "a/b")
                    break
                except InterruptedSendError:
                    continue
            assert sent.size == size
            assert (storage / "a/b").read_bytes() == path.read_bytes()
            # Whatever was lost, the sender never needed a second id, so nothing is left behind.
            assert [status.file_id for status in link.manager.transfers()] == []


@settings(max_examples=500 if FULL else 25, deadline=None)
@given(
    size=st.integers(0, 50),
    segment_size=st.integers(1, 20),
    faults=st.lists(st.sampled_from(FAULTS), max_size=30),
)
def test_comes_back_through_any_faults(size: int, segment_size: int, faults: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder, "storage")
        storage.mkdir()
        (storage / "stored").write_bytes(bytes(range(size)))
        target = Path(folder, "target")
        with local(storage, *faults) as link:
            while not target.exists():
                try:
                    FileFetcher(link, segment_size=segment_size).get("stored", target)
                except InterruptedSendError:
                    continue
        assert target.read_bytes() == bytes(range(size))
        assert sorted(each.name for each in Path(folder).iterdir()) == ["storage", "target"]


def test_a_damaged_transfer_is_sent_under_another_id(tmp_path: Path, path: Path) -> None:
    with local(tmp_path / "storage") as link:
        ids: list[str] = []

        def damage(handler: Handler, message: Message) -> Reply | ErrorReply:
            ids.append(message.other_fields["file_id"])
            if message.other_fields["segment_number"] == "3" and ids[-1] == ids[0]:
                return ErrorReply("the staging file is gone", {"error": "damaged"})
            return handler(message)

        link.override[STORE_TOPIC] = damage
        sent = FileSender(link, segment_size=100).send(path)
        assert sent.file_id == ids[-1] != ids[0]
    assert (tmp_path / "storage" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("same", [True, False])
def test_goes_on_where_the_store_does_not_know_the_hash_of_its_bytes(
    tmp_path: Path, path: Path, same: bool
) -> None:
    def without_hash(handler: Handler, message: Message) -> Reply | ErrorReply:
        answer = handler(message)
        assert isinstance(answer, Reply)
        return json_reply({**json.loads(answer.payload), "sha256": None})

    ids: list[str] = []
    with local(tmp_path / "storage", *["none"] * 4, "stop") as link:
        link.override[Topics().status] = without_hash
        sender = FileSender(link, segment_size=100)
        with pytest.raises(InterruptedSendError):
            sender.send(path, progress=lambda now: ids.append(now.file_id))
        if not same:
            link.ask(STORE_TOPIC, b"other bytes", {"segment_number": "3", "file_id": ids[0]})
        sent = sender.send(path)
        assert (sent.resumed_from, sent.file_id == ids[0]) == ((200, True) if same else (0, False))
        assert link.manager.transfers() == []
    assert (tmp_path / "storage" / path.name).read_bytes() == path.read_bytes()


def test_a_transfer_whose_staged_bytes_are_gone_is_sent_under_another_id(
    tmp_path: Path, path: Path
) -> None:
    storage = tmp_path / "storage"
    with local(storage, *["none"] * 4, "stop") as link:
        sender = FileSender(link, segment_size=100)
        with pytest.raises(InterruptedSendError):
            sender.send(path)
        (staged,) = (storage / ".workdir" / "staging").iterdir()
        staged.unlink()
        assert sender.send(path).resumed_from == 0
    assert (storage / path.name).read_bytes() == path.read_bytes()


def test_gives_up_on_a_store_that_stays_unavailable(tmp_path: Path, path: Path) -> None:
    with local(tmp_path / "storage", "none", "none", "none") as link:
        link.retry_for = 0.05
        link.faults = iter(["none"] * 3 + ["unavailable"] * 1_000_000)
        with pytest.raises(GaveUpError, match="nothing went forward for"):
            FileSender(link, segment_size=100).send(path)


def test_gives_up_when_every_id_is_taken(tmp_path: Path, path: Path) -> None:
    def taken(handler: Handler, message: Message) -> Reply | ErrorReply:
        assert handler is not None
        status = {"segments_received": 1, "bytes_received": 3, "sha256": "0" * 64}
        return json_reply({**json.loads(message.payload), **status, "state": "receiving"})

    with local(tmp_path / "storage") as link:
        link.override[Topics().status] = taken
        with pytest.raises(FabricError, match="every id"):
            FileSender(link).send(path)


@pytest.mark.parametrize("field", ["payload", "offset", "sha256"])
def test_an_answer_that_does_not_check_is_an_error(tmp_path: Path, path: Path, field: str) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    (storage / "stored").write_bytes(path.read_bytes())

    def spoil(handler: Handler, message: Message) -> Reply | ErrorReply:
        answer = handler(message)
        assert isinstance(answer, Reply)
        if not answer.payload:
            return answer
        if field == "payload":
            return Reply(b"x" + answer.payload[1:], answer.fields)
        return Reply(answer.payload, {**answer.fields, field: "7"})

    with local(storage) as link:
        link.override[Topics().get] = spoil
        with pytest.raises(FabricError, match=r"damaged|replaced"):
            FileFetcher(link).get("stored", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_bad_segment_sizes(tmp_path: Path) -> None:
    with local(tmp_path / "storage") as link:
        for size in (0, LARGEST_SEGMENT + 1):
            for kind in (FileSender, FileFetcher):
                with pytest.raises(ValueError, match=f"should be from 1 to {LARGEST_SEGMENT}"):
                    kind(link, segment_size=size)


def refused(sender: FileSender, path: Path, name: str) -> str:
    """Why a file is refused."""
    with pytest.raises(RemoteError) as caught:
        sender.send(path, name)
    assert caught.value.kind == "refused"
    return str(caught.value)


def test_a_file_that_is_refused_takes_no_place(tmp_path: Path, path: Path) -> None:
    limits = Limits(max_file_size=1000, max_transfers=1)
    with local(tmp_path / "storage", limits=limits) as link:
        sender = FileSender(link, segment_size=100)
        assert path.stat().st_size == 1024
        for name in ("large", "larger"):
            text = refused(sender, path, name)
            assert f"The file {name!r} with id" in text
            assert "at most 1000 bytes" in text
        for name in ("../outside", ".workdir/x", "a\0b"):
            assert "is refused" in refused(sender, path, name)
        assert link.manager.transfers() == []
        path.write_bytes(bytes(1000))
        assert sender.send(path).segments == 10


def test_a_file_that_changed_on_the_way_says_what_is_left_of_it(tmp_path: Path, path: Path) -> None:
    def change(handler: Handler, message: Message) -> Reply | ErrorReply:
        path.write_bytes(b"other")
        return handler(message)

    with local(tmp_path / "storage") as link:
        link.override[STORE_TOPIC] = change
        with pytest.raises(FileChangedError) as caught:
            FileSender(link, segment_size=600).send(path)
        (left,) = link.manager.transfers()
        assert caught.value.file_id == left.file_id
        link.override.clear()
        made_up = Path("/proc/self/status")  # its size is 0, and yet there are bytes in it
        with pytest.raises(FileChangedError) as caught:
            FileSender(link).send(made_up)
        assert caught.value.file_id is None


def test_a_name_that_no_message_can_carry_is_refused(tmp_path: Path, path: Path) -> None:
    name = os.fsdecode(b"a\xffb")
    with local(tmp_path / "storage") as link:
        with pytest.raises(UnsendableNameError, match="is not UTF-8") as caught:
            FileSender(link).send(path, name)
        assert caught.value.name == name
        assert link.manager.transfers() == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "file/", "missing/", "missing/file"])
def test_a_target_that_cannot_be_is_refused_before_anything_is_asked(
    tmp_path: Path, path: Path, kind: str
) -> None:
    targets = tmp_path / "targets"
    (targets / "folder").mkdir(parents=True)
    (targets / "file").touch()
    os.mkfifo(targets / "fifo")
    before = {each: each.lstat().st_mode for each in targets.iterdir()}
    with local(tmp_path / "storage") as link:
        FileSender(link).send(path, "stored")
        link.faults = iter(["no request is expected"])
        with pytest.raises(OSError, match=kind.split("/")[0]):
            FileFetcher(link).get("stored", f"{targets}/{kind}")
        assert next(link.faults, "") == "no request is expected"
    assert {each: each.lstat().st_mode for each in targets.iterdir()} == before


def test_a_link_as_the_target_is_replaced_and_what_it_leads_to_is_not(
    tmp_path: Path, path: Path
) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "full").symlink_to("other")
    (tmp_path / "empty").symlink_to("nothing")
    with local(tmp_path / "storage") as link:
        FileSender(link).send(path, "stored")
        for name in ("full", "empty"):
            FileFetcher(link).get("stored", tmp_path / name)
            assert not (tmp_path / name).is_symlink()
            assert (tmp_path / name).read_bytes() == path.read_bytes()
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "nothing").exists()


def test_equal_files_come_into_one_folder_at_once(tmp_path: Path, path: Path) -> None:
    with local(tmp_path / "storage") as link:
        FileSender(link).send(path, "stored")
        fetcher = FileFetcher(link, segment_size=600)

        def meanwhile(done: int, _size: int) -> None:
            if done == 600:
                fetcher.get("stored", tmp_path / "two")

        fetcher.get("stored", tmp_path / "one", meanwhile)
    for name in ("one", "two"):
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def cancel_at(link: LocalLink, number: str) -> list[str]:
    """Have somebody else cancel the transfer before its n-th segment comes, once; its id."""
    cancelled: list[str] = []

    def store(handler: Handler, message: Message) -> Reply | ErrorReply:
        if message.other_fields["segment_number"] == number and not cancelled:
            cancelled.append(message.other_fields["file_id"])
            assert link.manager.cancel(cancelled[0]).segments_received
        return handler(message)

    link.override[STORE_TOPIC] = store
    return cancelled


@pytest.mark.parametrize("level", ["segment", "file"])
@pytest.mark.parametrize("number", ["2", "5", "11"])
def test_a_transfer_that_somebody_cancels_is_not_begun_anew(
    tmp_path: Path, path: Path, number: str, level: str
) -> None:
    with local(tmp_path / "storage", durability=level) as link:
        cancelled = cancel_at(link, number)
        sender = FileSender(link, segment_size=100)
        with pytest.raises(TransferCancelledError, match="cancelled") as caught:
            sender.send(path)
        assert [caught.value.file_id] == cancelled
        assert link.manager.transfers() == []
        assert not (tmp_path / "storage" / path.name).exists()
        assert sender.send(path).segments == 11


@pytest.mark.parametrize(
    ("level", "told"), [("file", "new boot"), ("none", "new boot"), ("segment", "nothing")]
)
def test_a_transfer_that_a_power_loss_may_have_taken_is_begun_anew(
    tmp_path: Path, path: Path, level: str, told: str
) -> None:
    with local(tmp_path / "storage", durability=level) as link:
        cancelled = cancel_at(link, "5")

        def status(handler: Handler, message: Message) -> Reply | ErrorReply:
            answer = handler(message)
            assert isinstance(answer, Reply)
            if not cancelled:
                return answer
            epoch = None if told == "nothing" else "another"
            return json_reply({**json.loads(answer.payload), "epoch": epoch})

        link.override[Topics().status] = status
        FileSender(link, segment_size=100).send(path)
    assert (tmp_path / "storage" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_what_was_got_of_a_file_that_is_not_stored_any_more_does_not_stay(
    tmp_path: Path, path: Path, then: str
) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    with local(tmp_path / "storage") as link:
        FileSender(link).send(path, "stored")
        fetcher = FileFetcher(link, segment_size=600)

        def stop(done: int, _size: int) -> None:
            if done == 600:
                raise InterruptedSendError("stopped by the user")

        with pytest.raises(InterruptedSendError):
            fetcher.get("stored", targets / "one", stop)
        assert len(list(targets.iterdir())) == 1
        if then == "replaced":
            path.write_bytes(b"new")
            FileSender(link).send(path, "stored")
            fetcher.get("stored", targets / "one")
            assert [each.name for each in targets.iterdir()] == ["one"]
            return

        def remove(_done: int, _size: int) -> None:
            (tmp_path / "storage" / "stored").unlink(missing_ok=True)

        with pytest.raises(RemoteError, match="No file"):
            fetcher.get("stored", targets / "one", remove)
        assert list(targets.iterdir()) == []
