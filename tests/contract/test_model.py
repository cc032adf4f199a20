"""Any mix of messages, managers and restarts, against a model that knows what was acknowledged.

The model is a few dictionaries.  After each step the storage holds exactly the files that it
knows of, the journal exactly the transfers, and the staging folder exactly their bytes.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import (
    FULL,
    LEVELS,
    Booted,
    PlainMessage,
    claim,
    folders,
    message,
    outcome,
    published,
    sha256,
    staged,
)

from txstore import FileStoreManager
from txstore.errors import (
    FieldError,
    FileMismatchError,
    NameRefusedError,
    RepeatMismatchError,
    SequenceError,
)
from txstore.options import Level

IDS = ("A", "\N{SNOWMAN}")

#: ``d`` is a folder from the start, ``l`` a link to it; ``e`` becomes a file or a folder.
NAMES = ("f", "./f", "d/f", "l/f", "d//g/./f", "l/g/f", "d/../e", "e/f", "e/g", "x/y/z")
REFUSED_NAMES = ("../f", ".workdir/f", ".txstore", ".", "d", "d/f/../../..", "n" * 256)

Refusal = type[Exception]

#: Where flushes cost nothing; what they do is not what this is about.
MEMORY = "/dev/shm"


@dataclass(eq=False)
class Done:
    """A last message that was carried out, and what became of its file."""

    sent: PlainMessage
    answer: dict[str, Any]
    place: str
    as_published: bool = True


class Model:
    """What the store must have acknowledged, and what readers must find."""

    def __init__(self) -> None:
        self.open: dict[str, list[bytes]] = {}
        self.done: list[Done] = []
        self.files: dict[str, bytes] = {}
        self.folders = {"d"}

    def expect(self, file_id: str, sent: PlainMessage) -> dict[str, Any] | Refusal:
        """The answer that a message must get; the model is then as after it."""
        fields = sent.other_fields
        if fields.get("result") == "cancel":
            return self.answer(file_id, len(self.open.pop(file_id, [])), "cancel")
        number = int(fields["segment_number"])
        if fields.get("result") == "store":
            return self.expect_store(file_id, number, sent)
        parts = self.open.get(file_id, [])
        if number == len(parts) + 1:
            self.open[file_id] = [*parts, sent.payload]
        elif number != len(parts) or not parts:
            return SequenceError
        elif sent.payload != parts[-1]:
            return RepeatMismatchError
        return self.answer(file_id, number)

    def expect_store(
        self, file_id: str, number: int, sent: PlainMessage
    ) -> dict[str, Any] | Refusal:
        place = self.normalise(sent.other_fields["name"])
        if place is None:
            return NameRefusedError
        parts = self.open.get(file_id, [])
        in_turn = number == len(parts) + 1
        whole = b"".join(parts) + sent.payload
        stated = int(sent.other_fields["size"]), sent.other_fields["hash_sha256"].lower()
        matches = stated == (len(whole), sha256(whole))
        if not (parts and in_turn and matches):
            same = [done for done in self.done if self.is_same(done, file_id, sent)]
            # A file in one segment may have been stored again since: the latest tells.
            for done in same if number > 1 else same[-1:]:
                if number > 1 or done.as_published or self.is_overtaken(done):
                    return done.answer
        if not in_turn:
            return RepeatMismatchError if number == len(parts) else SequenceError
        if not matches:
            self.open.pop(file_id, None)
            return FileMismatchError
        if self.is_in_the_way(place):
            return NameRefusedError
        return self.publish(file_id, number, sent, place, whole)

    def publish(
        self, file_id: str, number: int, sent: PlainMessage, place: str, whole: bytes
    ) -> dict[str, Any]:
        answer = self.answer(file_id, number, "store")
        self.done.append(Done(sent, answer, place))
        self.open.pop(file_id, None)
        self.files[place] = whole
        while place := posixpath.dirname(place):
            self.folders.add(place)
        return answer

    @staticmethod
    def is_same(done: Done, file_id: str, sent: PlainMessage) -> bool:
        old, new = done.sent.other_fields, sent.other_fields
        if done.answer["file_id"] != file_id or sent.payload != done.sent.payload:
            return False
        return all(
            meaning(old[field]) == meaning(new[field])
            for field, meaning in (
                ("segment_number", int),
                ("name", lexical),
                ("size", int),
                ("hash_sha256", str.lower),
            )
        )

    def is_overtaken(self, done: Done) -> bool:
        later = self.done[self.done.index(done) + 1 :]
        return any(one.place == done.place for one in later)

    @staticmethod
    def answer(file_id: str, number: int, result: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {"file_id": file_id, "segments_received": number}
        return found | ({"result": result} if result else {})

    @staticmethod
    def normalise(name: str) -> str | None:
        """The place that a name leads to; ``None`` where no disk is needed to refuse it."""
        path = lexical(name)
        if path == "." or path.startswith("..") or path.split("/")[0] in (".workdir", ".txstore"):
            return None
        return "d" + path[1:] if path.startswith("l/") else path

    def is_in_the_way(self, place: str) -> bool:
        if place in self.folders or any(len(part) > 255 for part in place.split("/")):
            return True
        parents = []
        while place := posixpath.dirname(place):
            parents.append(place)
        return any(parent in self.files for parent in parents)


def lexical(name: str) -> str:
    return posixpath.normpath(name)


payloads = st.binary(max_size=6) | st.sampled_from([b"", b"x" * 64, b"y" * 5000])
picks = st.integers(0, 10**6)
levels = st.sampled_from(LEVELS)


class AnyMix(RuleBasedStateMachine):
    """Real managers over one storage, and the model."""

    assigned = Bundle("assigned")
    file_ids = st.sampled_from(IDS) | assigned

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(dir=MEMORY if os.path.isdir(MEMORY) else None)
        Path(self.folder, "d").mkdir()
        Path(self.folder, "l").symlink_to("d")
        self.model = Model()
        self.managers: list[FileStoreManager] = []
        self.left_open: list[FileStoreManager] = []
        self.boots = 1
        self.meddled = False

    def teardown(self) -> None:
        for manager in self.managers + self.left_open:
            manager.close()
        shutil.rmtree(self.folder)

    # Managers

    def add(self, level: Level) -> None:
        self.managers.append(
            FileStoreManager(self.folder, durability=level, disk=Booted(f"boot {self.boots}"))
        )

    def pick(self, which: int) -> FileStoreManager:
        return self.managers[which % len(self.managers)]

    @initialize(level=levels)
    def begin(self, level: Level) -> None:
        self.add(level)

    @precondition(lambda self: len(self.managers) < 4)
    @rule(level=levels)
    def open_another(self, level: Level) -> None:
        self.add(level)

    @rule(which=picks, level=levels, end=st.sampled_from(["close", "drop", "leave"]))
    def restart(self, which: int, level: Level, end: str) -> None:
        manager = self.managers.pop(which % len(self.managers))
        if end == "close":
            manager.close()
        elif end == "leave":  # as if it hung: it holds what it holds, and does nothing
            self.left_open.append(manager)
        del manager
        self.add(level)

    @precondition(lambda self: not self.meddled)
    @rule(level=levels)
    def reboot(self, level: Level) -> None:
        """All end at once; nothing that the kernel had was lost."""
        for manager in self.managers + self.left_open:
            manager.close()
        self.managers, self.left_open = [], []
        self.boots += 1
        self.add(level)

    # Messages

    def send(self, which: int, sent: PlainMessage) -> str:
        """Send a message and compare; answer the transfer's id."""
        result = outcome(self.pick(which).store_segment, sent)
        given = sent.other_fields.get("file_id")
        file_id = given or getattr(result, "file_id", "")
        expected = self.model.expect(file_id, sent)
        if isinstance(expected, dict):
            assert not isinstance(result, Exception), (sent, result)
            assert result.to_dict() == expected
        else:
            assert type(result) is expected, (sent, result)
            assert isinstance(result, ValueError)
            next_number = len(self.model.open.get(file_id, [])) + 1
            if isinstance(result, SequenceError):
                assert result.expected == next_number
                assert result.received == int(sent.other_fields["segment_number"])
            if isinstance(result, FieldError | NameRefusedError | SequenceError):
                assert result.file_id == given
        return str(file_id)

    @rule(target=assigned, which=picks, payload=payloads)
    def first_without_an_id(self, which: int, payload: bytes) -> Any:
        file_id = self.send(which, message(payload, segment_number="1"))
        assert file_id not in IDS
        return file_id

    @rule(
        target=assigned, which=picks, payload=payloads, name=st.sampled_from(NAMES + REFUSED_NAMES)
    )
    def all_without_an_id(self, which: int, payload: bytes, name: str) -> Any:
        known = len(self.model.done)
        file_id = self.send(which, message(payload, segment_number="1", **claim(payload, name)))
        return file_id if len(self.model.done) > known else multiple()

    @rule(which=picks, file_id=file_ids, payload=payloads)
    def next_segment(self, which: int, file_id: str, payload: bytes) -> None:
        number = len(self.model.open.get(file_id, [])) + 1
        self.send(which, message(payload, file_id=file_id, segment_number=str(number)))

    @precondition(lambda self: self.model.open)
    @rule(which=picks, transfer=picks, again=st.none() | st.none() | payloads)
    def last_segment_again(self, which: int, transfer: int, again: bytes | None) -> None:
        """With its own bytes, mostly."""
        file_id = list(self.model.open)[transfer % len(self.model.open)]
        parts = self.model.open[file_id]
        payload = parts[-1] if again is None else again
        self.send(which, message(payload, file_id=file_id, segment_number=len(parts)))

    @rule(
        which=picks,
        file_id=file_ids,
        off=st.sampled_from([-1, 0, 2, 3]),
        payload=payloads,
        fields=st.just({}) | st.builds(claim, payloads, st.sampled_from(NAMES)),
    )
    def number_out_of_turn(
        self, which: int, file_id: str, off: int, payload: bytes, fields: dict[str, str]
    ) -> None:
        number = max(1, len(self.model.open.get(file_id, [])) + off)
        self.send(which, message(payload, file_id=file_id, segment_number=number, **fields))

    @rule(
        file_id=file_ids,
        parts=st.lists(st.tuples(picks, payloads), min_size=1, max_size=3),
        name=st.sampled_from(NAMES),
    )
    def whole_file(self, file_id: str, parts: list[tuple[int, bytes]], name: str) -> None:
        """Each segment to another manager; it may go on from what is there."""
        begun = self.model.open.get(file_id, [])
        whole = b"".join(begun) + b"".join(payload for _, payload in parts)
        for index, (which, payload) in enumerate(parts):
            fields = claim(whole, name) if index == len(parts) - 1 else {}
            number = len(begun) + index + 1
            self.send(which, message(payload, file_id=file_id, segment_number=number, **fields))

    @rule(
        which=picks,
        file_id=file_ids,
        payload=payloads,
        name=st.sampled_from(NAMES * 2 + REFUSED_NAMES),
        more=st.sampled_from([b"", b"", b"", b"more"]),
        upper=st.booleans(),
    )
    def finish(
        self, which: int, file_id: str, payload: bytes, name: str, more: bytes, upper: bool
    ) -> None:
        """With ``more``, what is claimed is not what was sent."""
        parts = self.model.open.get(file_id, [])
        fields = claim(b"".join(parts) + payload + more, name)
        if upper:
            fields["hash_sha256"] = fields["hash_sha256"].upper()
        self.send(which, message(payload, file_id=file_id, segment_number=len(parts) + 1, **fields))

    @precondition(lambda self: self.model.done)
    @rule(
        which=picks,
        done=picks,
        change=st.sampled_from(
            [
                {},
                {},
                {},
                {"name": "f"},
                {"name": "d/./f"},
                {"segment_number": "1"},
                {"segment_number": "2"},
                {"file_id": "A"},
                {"size": "0"},
            ]
        ),
        payload=st.none() | payloads,
    )
    def final_message_again(
        self, which: int, done: int, change: dict[str, str], payload: bytes | None
    ) -> None:
        """Exactly as it was, mostly."""
        found = self.model.done[done % len(self.model.done)]
        fields = {**found.sent.other_fields, "file_id": found.answer["file_id"], **change}
        exact = payload is None or not change
        self.send(which, message(found.sent.payload if exact else payload, **fields))

    @rule(which=picks, file_id=file_ids, by_method=st.booleans())
    def cancel(self, which: int, file_id: str, by_method: bool) -> None:
        sent = message(file_id=file_id, result="cancel")
        if by_method:
            expected = self.model.expect(file_id, sent)
            assert self.pick(which).cancel(file_id).to_dict() == expected
        else:
            self.send(which, sent)

    @rule(which=picks)
    def expire(self, which: int) -> None:
        assert self.pick(which).expire() == []

    # Others, who use what was stored

    @precondition(lambda self: self.model.files and self.boots == 1)
    @rule(which=picks, size=st.none() | st.integers(6000, 6010))
    def somebody_changes_a_file(self, which: int, size: int | None) -> None:
        """Its size too: what else changes within a tick of the kernel's clock cannot be seen."""
        place = sorted(self.model.files)[which % len(self.model.files)]
        path = Path(self.folder, place)
        if size is None:
            path.unlink()
            del self.model.files[place]
        else:
            path.write_bytes(bytes(size))
            self.model.files[place] = bytes(size)
        for done in self.model.done:
            if done.place == place:
                done.as_published = False
        self.meddled = True

    # What must hold

    @precondition(lambda self: self.managers)
    @invariant()
    def the_storage_holds_exactly_what_was_acknowledged(self) -> None:
        assert published(self.managers[0]) == self.model.files
        assert folders(self.managers[0]) == self.model.folders
        assert set(os.listdir(self.folder)) >= {".txstore", ".workdir", "d", "l"}

    @precondition(lambda self: self.managers)
    @invariant()
    def the_journal_knows_exactly_the_open_transfers(self) -> None:
        parts = self.model.open
        assert sorted(staged(self.managers[0])) == sorted(map(b"".join, parts.values()))
        for manager in self.managers:
            assert [one.file_id for one in manager.transfers()] == list(parts)

    @rule(which=picks, file_id=file_ids)
    def look(self, which: int, file_id: str) -> None:
        found = self.pick(which).status(file_id)
        parts = self.model.open.get(file_id)
        if parts is None:
            last = next(
                (one for one in reversed(self.model.done) if one.answer["file_id"] == file_id), None
            )
            assert (found is None) == (last is None)
            if found is None or last is None:
                return
            size, hash_sha256 = (
                int(last.sent.other_fields["size"]),
                last.sent.other_fields["hash_sha256"],
            )
            expected = ("stored", last.answer["segments_received"], size, hash_sha256.lower())
        else:
            assert found is not None
            whole = b"".join(parts)
            expected = ("receiving", len(parts), len(whole), sha256(whole))
        assert (
            found.state,
            found.segments_received,
            found.bytes_received,
            found.sha256,
        ) == expected
        assert found.file_id == file_id
        assert found.created_at <= found.updated_at


def test_any_mix_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        AnyMix,
        settings=settings(
            max_examples=2000 if FULL else 60,
            stateful_step_count=60 if FULL else 30,
            report_multiple_bugs=False,
        ),
    )
