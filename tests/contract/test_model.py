"""Any mix of messages, managers and restarts, against the model of ``txstore.testing``.

After each step the storage holds exactly the files that the model knows of, the journal exactly the
transfers, and the staging folder exactly their bytes.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

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
    claim,
    folders,
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
from txstore.testing import Claims, Message, Refusal, State, cancel, segment, step

IDS = ("A", "\N{SNOWMAN}")

#: ``d`` is a folder from the start, ``l`` a link to it; ``e`` becomes a file or a folder.
NAMES = ("f", "./f", "d/f", "l/f", "d//g/./f", "l/g/f", "d/../e", "e/f", "e/g", "x/y/z")
REFUSED_NAMES = ("../f", ".workdir/f", ".txstore", ".", "d", "d/f/../../..", "n" * 256)


class Sent(NamedTuple):
    """A last message that was carried out, with the transfer's id."""

    message: Message
    file_id: str


def is_refused_unseen(name: str) -> bool:
    """Whether no disk is needed to refuse a name."""
    path = posixpath.normpath(name)
    return path == "." or path.startswith("..") or path.split("/")[0] in (".workdir", ".txstore")


payloads = st.binary(max_size=6) | st.sampled_from([b"", b"x" * 64, b"y" * 5000])
picks = st.integers(0, 10**6)
levels = st.sampled_from(LEVELS)


class AnyMix(RuleBasedStateMachine):
    """Real managers over one storage, and the model."""

    assigned = Bundle("assigned")
    file_ids = st.sampled_from(IDS) | assigned

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        Path(self.folder, "d").mkdir()
        Path(self.folder, "l").symlink_to("d")
        self.state = State(links={"l": "d"}, bare=frozenset(["d"]))
        self.carried_out: list[Sent] = []
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

    def segments(self, file_id: str) -> tuple[bytes, ...]:
        """What was recorded of an unfinished transfer."""
        known = self.state.unfinished.get(file_id)
        return known.segments if known else ()

    def expect(self, file_id: str, sent: Message) -> dict[str, Any] | type[Exception]:
        """The answer that a message must get; the state is then as after it."""
        fields, recorded = sent.other_fields, self.segments(file_id)
        if fields.get("result") == "store" and is_refused_unseen(fields["name"]):
            return NameRefusedError
        expected, self.state = step(self.state, sent, Claims.everything(), assigned=file_id)
        if isinstance(expected, Refusal):
            if expected.expected is None:
                return FileMismatchError if expected.ends else NameRefusedError
            again = recorded and int(fields["segment_number"]) == len(recorded)
            return RepeatMismatchError if again else SequenceError
        if expected.file_result == "store" and not expected.repeated:
            self.carried_out.append(Sent(sent, file_id))
        answer = {"file_id": file_id, "segments_received": expected.segments_received}
        return answer | ({"result": expected.file_result} if expected.file_result else {})

    def send(self, which: int, sent: Message) -> str:
        """Send a message and compare; answer the transfer's id."""
        result = outcome(self.pick(which).store_segment, sent)
        given = sent.other_fields.get("file_id")
        file_id = given or getattr(result, "file_id", "")
        expected = self.expect(file_id, sent)
        if isinstance(expected, dict):
            assert not isinstance(result, Exception), (sent, result)
            assert result.to_dict() == expected
        else:
            assert type(result) is expected, (sent, result)
            assert isinstance(result, ValueError)
            if isinstance(result, SequenceError):
                assert result.expected == self.state.next_number(file_id)
                assert result.received == int(sent.other_fields["segment_number"])
            if isinstance(result, FieldError | NameRefusedError | SequenceError):
                assert result.file_id == given
        return str(file_id)

    @rule(target=assigned, which=picks, payload=payloads)
    def first_without_an_id(self, which: int, payload: bytes) -> Any:
        file_id = self.send(which, segment(1, payload))
        assert file_id not in IDS
        return file_id

    @rule(
        target=assigned, which=picks, payload=payloads, name=st.sampled_from(NAMES + REFUSED_NAMES)
    )
    def all_without_an_id(self, which: int, payload: bytes, name: str) -> Any:
        known = len(self.carried_out)
        file_id = self.send(which, segment(1, payload, **claim(payload, name)))
        return file_id if len(self.carried_out) > known else multiple()

    @rule(which=picks, file_id=file_ids, payload=payloads)
    def next_segment(self, which: int, file_id: str, payload: bytes) -> None:
        self.send(which, segment(self.state.next_number(file_id), payload, file_id))

    @precondition(lambda self: self.state.unfinished)
    @rule(which=picks, transfer=picks, again=st.none() | st.none() | payloads)
    def last_segment_again(self, which: int, transfer: int, again: bytes | None) -> None:
        """With its own bytes, mostly."""
        file_id = list(self.state.unfinished)[transfer % len(self.state.unfinished)]
        parts = self.segments(file_id)
        payload = parts[-1] if again is None else again
        self.send(which, segment(len(parts), payload, file_id))

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
        number = max(1, len(self.segments(file_id)) + off)
        self.send(which, segment(number, payload, file_id, **fields))

    @rule(
        file_id=file_ids,
        parts=st.lists(st.tuples(picks, payloads), min_size=1, max_size=3),
        name=st.sampled_from(NAMES),
    )
    def whole_file(self, file_id: str, parts: list[tuple[int, bytes]], name: str) -> None:
        """Each segment to another manager; it may go on from what is there."""
        begun = self.segments(file_id)
        whole = b"".join(begun) + b"".join(payload for _, payload in parts)
        for index, (which, payload) in enumerate(parts):
            fields = claim(whole, name) if index == len(parts) - 1 else {}
            number = len(begun) + index + 1
            self.send(which, segment(number, payload, file_id, **fields))

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
        parts = self.segments(file_id)
        fields = claim(b"".join(parts) + payload + more, name)
        if upper:
            fields["hash_sha256"] = fields["hash_sha256"].upper()
        self.send(which, segment(len(parts) + 1, payload, file_id, **fields))

    @precondition(lambda self: self.carried_out)
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
        found = self.carried_out[done % len(self.carried_out)]
        fields = {**found.message.other_fields, "file_id": found.file_id, **change}
        exact = payload is None or not change
        self.send(which, Message(found.message.payload if exact else payload, fields))

    @rule(which=picks, file_id=file_ids, by_method=st.booleans())
    def cancel(self, which: int, file_id: str, by_method: bool) -> None:
        sent = cancel(file_id)
        if by_method:
            expected = self.expect(file_id, sent)
            assert self.pick(which).cancel(file_id).to_dict() == expected
        else:
            self.send(which, sent)

    @rule(which=picks)
    def expire(self, which: int) -> None:
        assert self.pick(which).expire() == []

    # Others, who use what was stored

    @precondition(lambda self: self.state.files and self.boots == 1)
    @rule(which=picks, size=st.none() | st.integers(6000, 6010))
    def somebody_changes_a_file(self, which: int, size: int | None) -> None:
        """Its size too: what else changes within a tick of the kernel's clock cannot be seen."""
        place = sorted(self.state.files)[which % len(self.state.files)]
        path = Path(self.folder, place)
        if size is None:
            path.unlink()
        else:
            path.write_bytes(bytes(size))
        content = None if size is None else bytes(size)
        self.state = self.state.changed_by_others(place, content)
        self.meddled = True

    # What must hold

    @precondition(lambda self: self.managers)
    @invariant()
    def the_storage_holds_exactly_what_was_acknowledged(self) -> None:
        assert published(self.managers[0]) == self.state.files
        assert folders(self.managers[0]) == self.state.folders()
        assert set(os.listdir(self.folder)) >= {".txstore", ".workdir", "d", "l"}

    @precondition(lambda self: self.managers)
    @invariant()
    def the_journal_knows_exactly_the_open_transfers(self) -> None:
        unfinished = self.state.unfinished
        assert sorted(staged(self.managers[0])) == sorted(
            one.content for one in unfinished.values()
        )
        for manager in self.managers:
            assert [one.file_id for one in manager.transfers()] == list(unfinished)

    @rule(which=picks, file_id=file_ids)
    def look(self, which: int, file_id: str) -> None:
        found = self.pick(which).status(file_id)
        known = self.state.unfinished.get(file_id)
        if known is None:
            last = next(
                (one for one in reversed(self.state.finished) if one.file_id == file_id), None
            )
            assert (found is None) == (last is None)
            if found is None or last is None:
                return
            expected = ("stored", last.number, last.size, last.sha256)
        else:
            assert found is not None
            whole = known.content
            expected = ("receiving", len(known.segments), len(whole), sha256(whole))
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
