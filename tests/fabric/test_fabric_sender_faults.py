"""The sender against every order of faults, without a broker: the fabric is a function call."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txstore import FileStoreManager
from txstore.dxl import (
    FabricError,
    FileFetcher,
    FileSender,
    GaveUpError,
    InterruptedSendError,
    Link,
    NoAnswerError,
    RemoteError,
    ServiceConfig,
)
from txstore.dxl import link as link_module
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.protocol import STORE_TOPIC, ErrorReply, Reply, Topics, json_reply

FULL = os.environ.get("TXSTORE_FULL") == "1"
FAULTS = ["none", "lost request", "lost answer", "unavailable", "restart", "stop"]


@dataclass
class Message:
    payload: bytes
    other_fields: dict[str, str]


Handler = Callable[[Any], "Reply | ErrorReply"]


class LocalLink(Link):
    """Asks the handlers of a store directly; ``faults`` says what happens to each request."""

    def __init__(self, storage: Path, faults: Iterator[str]) -> None:
        self.notices: list[str] = []
        self.answer_timeout = 1.0
        self.retry_for = 3600.0
        self.notice = self.notices.append
        self.stop = threading.Event()
        self._config = ServiceConfig(str(storage), str(storage))
        self._faults = faults
        self._slowest = {}
        self.override: dict[str, Callable[[Handler, Message], Reply | ErrorReply]] = {}
        self._open()

    def _open(self) -> None:
        self.manager = FileStoreManager(self._config.storage_dir, durability="none")
        self._handlers = StoreHandlers(self.manager, self._config).by_topic()

    def close(self) -> None:
        self.manager.close()

    def once(
        self,
        topic: str,
        payload: bytes,
        fields: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        assert timeout is None or timeout > 0
        fault = next(self._faults, "none")
        if fault == "restart":
            self.close()
            self._open()
        if fault == "stop":
            raise InterruptedSendError("stopped by the user")
        if fault == "lost request":
            raise NoAnswerError(fault)
        if fault == "unavailable":
            raise RemoteError(fault, code=0, kind=fault, facts={})
        message = Message(payload, dict(fields or {}))
        handler = self._handlers[topic]
        override = self.override.get(topic)
        answer = handler(message) if override is None else override(handler, message)
        if fault == "lost answer":
            raise NoAnswerError(fault)
        if isinstance(answer, ErrorReply):
            raise RemoteError(answer.text, code=0, kind=answer.fields["error"], facts=answer.fields)
        return Message(answer.payload, dict(answer.fields))


@contextmanager
def local(storage: Path, *faults: str) -> Iterator[LocalLink]:
    with LocalLink(storage, iter(faults)) as link:
        assert isinstance(link, LocalLink)
        yield link


@pytest.fixture(autouse=True, scope="module")
def _no_pauses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "FIRST_PAUSE", 0.0)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 4)
    return path


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
        link._faults = iter(["none"] * 3 + ["unavailable"] * 1_000_000)
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
        with pytest.raises(ValueError, match="at least 1 byte"):
            FileSender(link, segment_size=0)
        for size in (0, 2**20):
            with pytest.raises(ValueError, match="should be from 1 to"):
                FileFetcher(link, segment_size=size)
