"""What is done to a store, step by step, with a record of what was acknowledged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

from crash.world import Clock
from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.checks import Finding
from txstore.disk import Disk
from txstore.errors import LimitError, NameTakenError
from txstore.options import Level
from txstore.testing.disk import SimulatedDisk


@dataclass(frozen=True)
class Upload:
    """A file, in the segments in which it is sent."""

    file_id: str
    name: str
    parts: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    @property
    def last(self) -> int:
        return len(self.parts)

    def sha256(self, segments: int) -> str:
        return hashlib.sha256(b"".join(self.parts[:segments])).hexdigest()


def upload(file_id: str, name: str, *sizes: int) -> Upload:
    """An upload whose bytes are its own."""
    parts = []
    for number, size in enumerate(sizes):
        unit = hashlib.sha256(f"{file_id} {name} {number}".encode()).digest()
        parts.append((unit * (size // 32 + 1))[:size])
    return Upload(file_id, name, tuple(parts))


class Message(NamedTuple):
    payload: bytes
    other_fields: dict[str, str]


def message(what: Upload, number: int, payload: bytes | None = None) -> Message:
    """One segment of an upload."""
    fields = {"file_id": what.file_id, "segment_number": str(number)}
    if number == what.last:
        fields |= {"result": "store", "name": what.name, "size": str(len(what.content))}
        fields["hash_sha256"] = what.sha256(number)
    return Message(what.parts[number - 1] if payload is None else payload, fields)


class Open(NamedTuple):
    actor: int = 0
    level: Level | None = None
    """``None``: the level of the run."""


class Close(NamedTuple):
    actor: int = 0


class Send(NamedTuple):
    upload: Upload
    number: int
    actor: int = 0


class Refused(NamedTuple):
    """A segment that is refused, and so changes nothing."""

    upload: Upload
    number: int
    actor: int = 0


class Cancel(NamedTuple):
    upload: Upload
    actor: int = 0


class Look(NamedTuple):
    """Somebody reads all events."""

    actor: int = 0


class Consume(NamedTuple):
    """A consumer reads its events, and is done with each."""

    consumer: str
    actor: int = 0


class Expire(NamedTuple):
    actor: int = 0


class Pass(NamedTuple):
    seconds: float


Step = Union[Open, Close, Send, Refused, Cancel, Look, Consume, Expire, Pass]  # noqa: UP007


class Crash(NamedTuple):
    """In the history: the machine went down, or only the process."""

    power: bool


class Event(NamedTuple):
    """In the history: a step was begun, or it was acknowledged."""

    step: Step
    level: Level
    acked: bool
    at: float


class Told(NamedTuple):
    """In the history: somebody was told of an end.

    :ivar consumer: empty: who only looks
    :ivar end: how a transfer ended, and which
    """

    consumer: str
    sequence: int
    end: tuple[str, str]


class DoneWith(NamedTuple):
    """In the history: a consumer is about to be done with an event, or is."""

    consumer: str
    sequence: int
    acked: bool


History = tuple[Event | Told | DoneWith | Crash, ...]


class Session:
    """Managers over one store, and what they were asked and answered.

    :param options: of its managers
    :ivar short: whether a sender who goes on may send less than he first wanted to
    :ivar history: what happened, for the oracle; with a simulated disk it is noted there, too
    """

    def __init__(
        self,
        root: str,
        disk: Disk,
        clock: Clock,
        level: Level,
        history: History,
        working: str | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = dict(options or {})
        self.root, self.disk, self.clock, self.level = root, disk, clock, level
        self.history = history
        self.short = False
        self.storage = os.path.join(root, "storage")
        self._working = os.path.join(root, working) if working else None
        self._managers: dict[int, tuple[FileStoreManager, Level]] = {}

    def manager(self, actor: int = 0) -> FileStoreManager:
        return self._managers[actor][0]

    def _note(self, event: Event | Told | DoneWith) -> None:
        self.history += (event,)
        if isinstance(self.disk, SimulatedDisk):
            self.disk.note(event)

    def do(self, step: Step) -> FileStoreSegmentResult | None:
        """Carry a step out."""
        if isinstance(step, Open):
            level = step.level or self.level
            manager = FileStoreManager(
                self.storage,
                self._working,
                durability=level,
                disk=self.disk,
                lock_timeout=5.0,
                **self.options,
            )
            self._managers[step.actor] = manager, level
            return None
        if isinstance(step, Close):
            self._managers.pop(step.actor)[0].close()
            return None
        if isinstance(step, Pass):
            self.clock.go_on(step.seconds)
            self._note(Event(step, self.level, True, self.clock.wall))
            return None
        manager, level = self._managers[step.actor]
        if isinstance(step, Refused):
            self._refuse(manager, step)
            return None
        if isinstance(step, Look | Consume):
            self._read(manager, step.consumer if isinstance(step, Consume) else "")
            return None
        self._note(Event(step, level, False, self.clock.wall))
        answer = None
        if isinstance(step, Send):
            answer = manager.store_segment(message(step.upload, step.number))
        elif isinstance(step, Cancel):
            answer = manager.cancel(step.upload.file_id)
        else:
            manager.expire()
        self._note(Event(step, level, True, self.clock.wall))
        return answer

    def _read(self, manager: FileStoreManager, consumer: str) -> None:
        if not consumer:
            for event in manager.events():
                self._note(Told("", event.sequence, (event.kind, event.file_id)))
            return
        with manager.events(consumer) as feed:
            for event in feed:
                self._note(Told(consumer, event.sequence, (event.kind, event.file_id)))
                self._note(DoneWith(consumer, event.sequence, acked=False))
                event.done()
                self._note(DoneWith(consumer, event.sequence, acked=True))
        self._note(DoneWith(consumer, 0, acked=True))

    @staticmethod
    def _refuse(manager: FileStoreManager, step: Refused) -> None:
        try:
            manager.store_segment(message(step.upload, step.number))
        except (NameTakenError, LimitError):
            return
        raise AssertionError(f"promise 5: segment {step.number} of {step.upload.file_id} is taken")

    def look(self) -> list[Finding]:
        """What ``check`` finds; nothing, where there is no store."""
        log = os.path.join(
            self._working or os.path.join(self.storage, ".workdir"), "journal.db-wal"
        )
        if os.path.exists(log):
            # The simulation leaves the log's index out, which is worth nothing after a crash.
            open(log.removesuffix("wal") + "shm", "ab").close()
        try:
            looked_at = FileStoreManager.inspect(
                self.storage, self._working, disk=self.disk, lock_timeout=5.0
            )
        except FileNotFoundError:
            return []
        return list(looked_at.check(deep=True))

    def has_manager(self) -> bool:
        """Whether any manager is open."""
        return 0 in self._managers

    def restart(self, actor: int) -> None:
        """Another manager in a manager's place."""
        manager, level = self._managers.pop(actor)
        manager.close()
        self.do(Open(actor, level))

    def close(self) -> None:
        while self._managers:
            self._managers.popitem()[1][0].close()
