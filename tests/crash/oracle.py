"""What the contract says must be there after a crash, given what was acknowledged before it."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field

from crash.steps import (
    Cancel,
    Crash,
    Event,
    Expire,
    History,
    Message,
    Pass,
    Send,
    Session,
    Upload,
    message,
)
from txstore import TransferStatus
from txstore.checks import Finding
from txstore.errors import NameTakenError, RepeatMismatchError, SequenceError
from txstore.testing.powerloss import Tree

#: Folders of the storage dir that are the store's own.
OWN = (".txstore", ".workdir")

#: What ``check`` finds after a crash, and the next worker sees to.
LEFT = frozenset(
    [
        *("journal-linked", "leftover", "marker-missing", "orphan"),
        "stored-changed",  # a file in one segment, whose worker died before it recorded that
        "transfer-linked",
    ]
)
#: What it finds where a power loss may damage what was stored.
OF_LEVEL_NONE = frozenset(["stored-changed", "stored-damaged", "stored-missing"])

_UMASK = os.umask(0o022)
os.umask(_UMASK)
#: What an ordinary new file gets.
MODE = 0o666 & ~_UMASK


class PromiseBrokenError(AssertionError):
    """The store does not do what the contract says."""


def broken(promise: int, text: str) -> PromiseBrokenError:
    return PromiseBrokenError(f"promise {promise}: {text}")


@dataclass
class Known:
    """What is known of one upload.

    :ivar floor: segments that must be there while it is unfinished
    :ivar ceiling: segments that may be there
    :ivar stored: ``"no"``, ``"maybe"`` or ``"sure"``
    :ivar ended: it was cancelled: ``"no"``, ``"maybe"`` or ``"sure"``
    :ivar recorded: its completion must be there
    :ivar listed: it must be in the catalogue, unless it was replaced
    :ivar forgotten: a power loss may have taken its completion: who gets it again stores it again
    """

    floor: int = 0
    ceiling: int = 0
    stored: str = "no"
    ended: str = "no"
    recorded: bool = False
    listed: bool = False
    forgotten: bool = False


@dataclass
class Name:
    """What may stand under one name: ``None``: nothing.

    :ivar damaged: a file was put there at a level that lets a power loss damage it
    :ivar any_mode: the same, of its mode, which no repeat mends at level ``"none"``
    :ivar latest: id of the upload that was last to go there
    """

    contents: list[bytes | None] = field(default_factory=lambda: [None])
    damaged: bool = False
    any_mode: bool = False
    latest: str = ""


@dataclass
class Expected:
    """What must be there after one kind of crash."""

    power: bool
    uploads: dict[str, Known] = field(default_factory=dict)
    names: dict[str, Name] = field(default_factory=dict)

    def of(self, upload: Upload) -> Known:
        return self.uploads.setdefault(upload.file_id, Known())

    def name(self, upload: Upload) -> Name:
        return self.names.setdefault(os.path.normpath(upload.name), Name())

    def forget(self) -> None:
        """The power was lost."""
        for known in self.uploads.values():
            known.forgotten = known.stored == "sure" and not known.recorded

    def add(self, event: Event) -> None:
        step = event.step
        if isinstance(step, Send):
            self._send(step.upload, step.number, event)
        elif isinstance(step, Cancel):
            known = self.of(step.upload)
            if known.stored != "sure":
                known.floor = 0
                kept = event.acked and (not self.power or event.level != "none")
                known.ended = "sure" if kept else "maybe"
        elif isinstance(step, Expire | Pass):
            for known in self.uploads.values():
                if known.stored != "sure":
                    known.floor, known.ended = 0, "maybe"
                elif isinstance(step, Pass):
                    known.recorded = False  # for so long no last message is known

    def _send(self, upload: Upload, number: int, event: Event) -> None:
        known = self.of(upload)
        if known.stored == "sure":
            if number == upload.last:
                self._repeated(upload, known, event)
        elif number == upload.last:
            self._final(upload, known, event)
        else:
            known.ceiling = max(known.ceiling, number)
            known.ended = "no" if known.ended == "no" else "maybe"
            if event.acked and (not self.power or event.level == "segment"):
                known.floor, known.ended = number, "no"

    def _repeated(self, upload: Upload, known: Known, event: Event) -> None:
        name, lasting = self.name(upload), not self.power or event.level != "none"
        if known.forgotten and not lasting:
            name.damaged, name.any_mode = True, True  # stored again, at level "none"
        elif event.acked and lasting:
            known.recorded = known.listed = not self.power or upload.last > 1
            if known.forgotten:
                known.forgotten, name.damaged, name.any_mode = False, False, False

    def _final(self, upload: Upload, known: Known, event: Event) -> None:
        name = self.name(upload)
        if event.acked and (not self.power or event.level != "none"):
            if known.stored == "maybe" and name.latest != upload.file_id:
                # It may be answered from its record, since another was stored there later.
                name.contents.append(upload.content)
                name.latest = ""
            else:
                name.contents, name.damaged = [upload.content], False
                name.latest = upload.file_id
            known.stored, known.ended, known.floor = "sure", "no", 0
            known.recorded = known.listed = not self.power or upload.last > 1
            return
        if known.stored == "no":
            name.latest = upload.file_id
        known.stored = "maybe"
        if event.acked:
            known.floor = 0
        name.contents.append(upload.content)
        if self.power and event.level == "none":
            name.damaged, name.any_mode = True, True


def expected(history: History) -> tuple[Expected, Expected]:
    """What must be there after a process crash, and after a power loss, now."""
    kill, power = Expected(False), Expected(True)
    for event in history:
        if isinstance(event, Crash):
            if event.power:
                power.forget()
                kill = copy.deepcopy(power)
                kill.power = False
            continue
        if not isinstance(event, Event):
            continue  # of events, which are another matter
        kill.add(event)
        power.add(event)
    return kill, power


def check_raw(tree: Tree, expect: Expected) -> None:
    """Promise 2, on the disk as it is, before anybody recovers anything.

    :raises PromiseBrokenError: it is broken
    """
    for path in tree.paths:
        parts = path.split("/")
        if len(parts) < 2 or parts[0] != "storage" or parts[1] in OWN:
            continue
        content = tree.file(path)
        if content is not None and "/".join(parts[1:]) not in expect.names:
            raise broken(2, f"there is a file {path!r} that nobody stored")
    for path, name in expect.names.items():
        content = tree.file("storage/" + path)
        check_name(path, content, name)
        if content is not None and not name.any_mode and tree.mode("storage/" + path) != MODE:
            raise broken(2, f"{path!r} has the mode {tree.mode('storage/' + path):o}")


def check_name(path: str, content: bytes | None, name: Name) -> None:
    """:raises PromiseBrokenError: what stands under a name is none of what may stand there"""
    if content in name.contents or name.damaged:
        return
    sizes = [None if one is None else len(one) for one in name.contents]
    has = "is missing" if content is None else f"holds {len(content)} bytes of something else"
    raise broken(2, f"{path!r} {has}; expected one of the contents of sizes {sizes}")


def read(session: Session, upload: Upload) -> bytes | None:
    try:
        with open(os.path.join(session.storage, upload.name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def check_opened(session: Session, tree: Tree, expect: Expected) -> None:
    """What opening a store published must be whole, at every level.

    :raises PromiseBrokenError: it is not
    """
    for path, name in expect.names.items():
        content = read(session, Upload("", path, ()))
        if content != tree.file("storage/" + path) and content not in name.contents:
            raise broken(3, f"{path!r} was published while recovering, and is not whole")


def check_findings(session: Session, expect: Expected, *, recovered: bool) -> list[Finding]:
    """What ``check`` finds: no damage, where no promise is broken; once all is done, nothing.

    :raises PromiseBrokenError: it finds what is not there
    """
    found = session.look()
    known = set() if recovered else set(LEFT)
    if any(name.damaged for name in expect.names.values()):
        known |= OF_LEVEL_NONE
    wrong = [one.meaning for one in found if one.kind not in known]
    if wrong:
        raise broken(3, f"damage is found that is none: {wrong}")
    return found


def check_recovery(session: Session, expect: Expected, uploads: list[Upload]) -> None:
    """Have an opened manager take everything to its end, holding it to the promises.

    :raises PromiseBrokenError: it broke one
    """
    for one in uploads:
        _check_upload(session, expect, one)
    for path, name in expect.names.items():
        check_name(path, read(session, Upload("", path, ())), name)
    _check_nothing_left(session)


def _check_upload(session: Session, expect: Expected, one: Upload) -> None:
    known, name = expect.of(one), expect.name(one)
    status = session.manager().status(one.file_id)
    if status is None:
        _check_unknown(known, one)
        if known.stored == "sure" and one.last > 1:
            return
        segments = 0
    elif status.state == "stored":
        if known.stored == "no":
            raise broken(1, f"{one.file_id} is stored, which nobody asked for")
        if known.stored == "sure" or not name.damaged or _answers_final(session, one):
            if name.latest == one.file_id and read(session, one) != one.content:
                raise broken(4, f"{one.file_id}: answered as stored, and is not there whole")
            _check_stored(session, expect, one)
            return
        segments = 0  # at level "none" a power loss may take an acked file
    else:
        segments = _check_unfinished(known, one, status)
        _check_refusals(session, one, segments)
    if known.ended == "sure":
        _check_refusals(session, one, 0)
    if session.short and 0 < segments < one.last - 1:
        # Nothing of what was not acknowledged may be left behind what comes now.
        one = Upload(one.file_id, one.name, (*one.parts[:segments], b"end"))
    _go_on(session, expect, one, segments)


def _check_unknown(known: Known, one: Upload) -> None:
    if known.floor:
        raise broken(1, f"{one.file_id}: {known.floor} acked segments are gone")
    if known.stored == "sure" and known.recorded:
        raise broken(4, f"{one.file_id}: the record of its completion is gone")


def _check_unfinished(known: Known, one: Upload, status: TransferStatus) -> int:
    segments = status.segments_received
    if known.stored == "sure":
        raise broken(1, f"{one.file_id}: acked as stored, but at segment {segments} again")
    if known.ended == "sure":
        raise broken(1, f"{one.file_id}: acked as cancelled, but at segment {segments} again")
    if not known.floor <= segments <= known.ceiling:
        wanted = f"{known.floor}..{known.ceiling}"
        raise broken(1, f"{one.file_id}: at segment {segments}, not {wanted}")
    if status.sha256 != one.sha256(segments):
        raise broken(3, f"{one.file_id}: the staged bytes are not those of {segments} segments")
    return segments


def _go_on(session: Session, expect: Expected, one: Upload, segments: int) -> None:
    known, name, before = expect.of(one), expect.name(one), read(session, one)
    try:
        _send_rest(session, one, segments)
    except SequenceError as error:
        if error.expected != 1 or known.ended != "maybe":
            raise
        _send_rest(session, one, 0)  # it expired just now
    except NameTakenError:
        _check_taken(session, one, name, before)
        return
    after = read(session, one)
    if after != one.content and known.stored != "no" and not segments:
        replaced = after is not None and after == before and after in name.contents
        if name.damaged or replaced:
            return  # stored before, and replaced since: at level "none" by a file that was lost
    if after != one.content:
        raise broken(1, f"{one.file_id}: stored now, and not there whole")
    name.contents, name.damaged, name.latest = [one.content], False, one.file_id
    _check_stored(session, expect, one)


def _check_taken(session: Session, one: Upload, name: Name, before: bytes | None) -> None:
    if before is None:
        raise broken(5, f"{one.file_id}: refused, and there is no file in its way")
    if before == one.content and not name.damaged:
        raise broken(4, f"{one.file_id}: refused because of its own file")
    session.do(Cancel(one))


def _send_rest(session: Session, one: Upload, segments: int) -> None:
    for number in range(max(segments, 1), one.last + 1):
        answer = session.do(Send(one, number))
        assert answer is not None
        result = "store" if number == one.last else None
        if (answer.segments_received, answer.file_result) != (number, result):
            raise broken(4, f"{one.file_id}: segment {number} was answered {answer}")


def _check_stored(session: Session, expect: Expected, one: Upload) -> None:
    name, before = expect.name(one), read(session, one)
    answer = session.do(Send(one, one.last))
    assert answer is not None
    if (answer.segments_received, answer.file_result) != (one.last, "store"):
        raise broken(4, f"{one.file_id}: its final message again was answered {answer}")
    after = read(session, one)
    if after == before or (after == one.content and (name.damaged or before is None)):
        return
    if expect.power and one.last == 1 and after == one.content:
        name.contents.append(one.content)  # its record may be lost: then it is stored again
        return
    raise broken(4, f"{one.file_id}: its final message again changed {one.name!r}")


def _answers_final(session: Session, one: Upload) -> bool:
    try:
        session.manager().store_segment(message(one, one.last))
    except SequenceError as error:
        if error.expected != 1:
            raise
        return False
    return True


def _check_refusals(session: Session, one: Upload, segments: int) -> None:
    manager = session.manager()
    try:
        manager.store_segment(message(one, segments + 2) if segments + 2 < one.last else _far(one))
    except SequenceError as error:
        if error.expected != segments + 1:
            raise broken(
                3, f"{one.file_id}: expects {error.expected}, not {segments + 1}"
            ) from None
    else:
        raise broken(4, f"{one.file_id}: took a segment out of turn")
    if segments:
        wrong = bytes(len(one.parts[segments - 1])) + b"?"
        try:
            manager.store_segment(message(one, segments, wrong[1:]))
        except RepeatMismatchError:
            return
        if one.parts[segments - 1]:
            raise broken(4, f"{one.file_id}: took other bytes for segment {segments}")


def _far(one: Upload) -> Message:
    far = Upload(one.file_id, one.name, (*one.parts, b"", b"", b"", b""))
    return message(far, far.last - 1)


def _check_nothing_left(session: Session) -> None:
    nobody = Upload("nobody", "nobody", (b"", b""))
    folders = [
        os.path.join(session.storage, ".txstore", "staging"),
        os.path.join(session.manager().working_dir, "staging"),
    ]
    for _ in range(4):
        left = [name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
        if not left:
            return
        session.clock.go_on(5.0)
        fields = {"file_id": nobody.file_id, "segment_number": "1", "result": "cancel"}
        session.manager().store_segment(message(nobody, 1)._replace(other_fields=fields))
    raise broken(9, f"staging files stay: {left}")
