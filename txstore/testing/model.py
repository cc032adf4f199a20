"""The contract as a pure function: a state, and what a message makes of it.

Nothing here knows how a store works.  ``State`` is what a sender and a reader of the storage can
know of it.  ``step`` says what a message must be answered and which state follows.  ``Claims`` says
which parts of the contract a store lays claim to.  ``StoreContract`` drives a real store alongside.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from txstore.constants import FileStoreProp, FileStoreResultProp
from txstore.testing.messages import Message

#: Bytes that one part of a name may have.
_LONGEST = 255


@dataclass(frozen=True)
class Claims:
    """What a store says of itself, beyond storing whole files whose segments come in order.

    :ivar resumes: a store opened anew over the same folders goes on with unfinished transfers
    :ivar exactly_once: a message that was answered, sent again, gets the same answer and changes
        nothing; without it a repeat may be refused, or a one-segment file be stored again
    :ivar several_workers: any of several stores open over the same folders takes the next message
    :ivar refuses_cleanly: every message that the contract refuses is a ``ValueError`` that changes
        nothing, and every one that it accepts is taken, however it is written
    :ivar survives_errors: after an error of the disk, which comes out as ``OSError``, the same
        message goes through as if nothing had been, and cancelling needs no space on the disk; the
        store has to be opened with ``Setup.disk``
    :ivar survives_crashes: the same after a crash at any operation; the store has to resume, and to
        be opened with ``Setup.disk``
    :ivar tells_events: ``events()`` has one event for each transfer that was stored or cancelled,
        in that order, and a crash takes or doubles none; the store has to resume
    :ivar catalogues: ``catalogue()`` has each stored file as it is, and no other, whatever crashes;
        the store has to resume
    :ivar refuses_taken: it is opened so that it replaces no file
    :ivar max_file_size: bytes that it lets a file have; ``None``: any number
    :ivar max_transfers: unfinished transfers that it lets there be
    :ivar max_unfinished_bytes: bytes that it lets them have together
    """

    resumes: bool = False
    exactly_once: bool = False
    several_workers: bool = False
    refuses_cleanly: bool = False
    survives_errors: bool = False
    survives_crashes: bool = False
    tells_events: bool = False
    catalogues: bool = False
    refuses_taken: bool = False
    max_file_size: int | None = None
    max_transfers: int | None = None
    max_unfinished_bytes: int | None = None

    def __post_init__(self) -> None:
        if (self.survives_crashes or self.tells_events or self.catalogues) and not self.resumes:
            raise ValueError(
                "A store that survives crashes, tells events, or keeps a catalogue, resumes: claim"
                " that, too."
            )

    @classmethod
    def everything(cls) -> Claims:
        """All that ``txstore.FileStoreManager`` claims, opened as it is by default."""
        return cls(
            resumes=True,
            exactly_once=True,
            several_workers=True,
            refuses_cleanly=True,
            survives_errors=True,
            survives_crashes=True,
            tells_events=True,
            catalogues=True,
        )


@dataclass(frozen=True)
class Answer:
    """A message must be answered so.

    :ivar file_id: the transfer's id; ``None``: a fresh one
    :ivar repeated: whether it is the answer of an earlier message, given again
    """

    file_id: str | None
    segments_received: int
    file_result: str | None = None
    repeated: bool = False


@dataclass(frozen=True)
class Refusal:
    """A message must be refused with a ``ValueError``.

    :ivar why: in words
    :ivar expected: number that the sender should send next, where the number is what is wrong
    :ivar ends: whether the transfer ends with it
    """

    why: str
    expected: int | None = None
    ends: bool = False


Expected = Answer | Refusal


@dataclass(frozen=True)
class Unfinished:
    """An unfinished transfer: the segments recorded so far."""

    segments: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return b"".join(self.segments)


@dataclass(frozen=True)
class Finished:
    """What a store remembers of a last message that it carried out."""

    file_id: str
    number: int
    last: bytes
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Ended:
    """How a transfer ended, as an event tells it.

    :ivar path: of the stored file; ``None``: it was cancelled
    :ivar size: bytes stored, or received
    """

    file_id: str
    path: str | None
    size: int


@dataclass(frozen=True)
class State:
    """What is known of a store from outside.

    :ivar files: path relative to the storage dir -> content
    :ivar unfinished: id -> unfinished transfer
    :ivar finished: last messages carried out, that of the latest at the end
    :ivar links: path of a symbolic link -> where it leads; of folders, not of files
    :ivar bare: folders that are there whatever files are
    :ivar changed: paths whose file is not, since somebody else was at it, as it was stored
    :ivar ended: what became of transfers, that of the latest at the end
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    unfinished: Mapping[str, Unfinished] = field(default_factory=dict)
    finished: tuple[Finished, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    ended: tuple[Ended, ...] = ()

    def next_number(self, file_id: str) -> int:
        """Number of the segment that the store waits for."""
        known = self.unfinished.get(file_id)
        return len(known.segments) + 1 if known else 1

    def folders(self) -> frozenset[str]:
        """The folders that the files lie in, relative to the storage dir."""
        found = set(self.bare)
        for path in self.files:
            while path := posixpath.dirname(path):
                found.add(path)
        return frozenset(found)

    def place(self, path: str) -> str:
        """Where a path leads."""
        for link, target in self.links.items():
            if path.startswith(f"{link}/"):
                return target + path[len(link) :]
        return path

    def changed_by_others(self, path: str, content: bytes | None) -> State:
        """The state after somebody else has put a file in a stored one's place, or removed it."""
        files = {one: old for one, old in self.files.items() if one != path}
        if content is not None:
            files[path] = content
        folders = frozenset(self.folders())
        return replace(self, files=files, bare=folders, changed=self.changed | {path})

    def _remembers(self, claim: Finished) -> bool:
        """Whether a last message gets its answer again.  One that was its file's only one does only
        if the file is as it was stored, or another has taken its place."""
        at = self.place(claim.path)
        stored_there = [one for one in self.finished if self.place(one.path) == at]
        if claim.number == 1 and at in self.changed and [claim] == stored_there[-1:]:
            return False
        return claim in stored_there

    def _stored(self, claim: Finished, content: bytes) -> State:
        at = self.place(claim.path)
        return replace(
            self._without(claim.file_id),
            files={**self.files, at: content},
            finished=(*(one for one in self.finished if one != claim), claim),
            changed=self.changed - {at},
            ended=(*self.ended, Ended(claim.file_id, claim.path, claim.size)),
        )

    def _cancelled(self, file_id: str) -> State:
        known = self.unfinished.get(file_id)
        if known is None:
            return self
        ended = Ended(file_id, None, len(known.content))
        return replace(self._without(file_id), ended=(*self.ended, ended))

    def _with(self, file_id: str, segments: tuple[bytes, ...]) -> State:
        return replace(self, unfinished={**self.unfinished, file_id: Unfinished(segments)})

    def _without(self, file_id: str) -> State:
        rest = {one: known for one, known in self.unfinished.items() if one != file_id}
        return replace(self, unfinished=rest)


def step(
    state: State, message: Message, claims: Claims, *, assigned: str = ""
) -> tuple[Expected, State]:
    """What a well-formed message must be answered, and the state after it.

    :param message: with fields as ``Transfer`` writes them, or in another accepted spelling
    :param assigned: the id that the store gave, where the message carries none
    """
    sent: Mapping[str, str] = message.other_fields
    given = sent.get(FileStoreProp.ID) or None
    file_id = given or assigned
    result = sent.get(FileStoreProp.RESULT) or None
    known = state.unfinished.get(file_id)
    recorded = known.segments if known else ()
    if result == FileStoreResultProp.CANCEL:
        return Answer(given, len(recorded), result), state._cancelled(file_id)

    number = int(sent[FileStoreProp.SEGMENT_NUMBER])
    payload = bytes(message.payload or b"")
    if result == FileStoreResultProp.STORE:
        return _final(state, message, given, file_id, recorded, claims)
    if number == len(recorded) + 1:
        limited = _too_large(recorded, message, claims) or _too_many(state, known, payload, claims)
        if limited:
            return limited, state
        return Answer(given, number), state._with(file_id, (*recorded, payload))
    if claims.exactly_once and recorded and (number, payload) == (len(recorded), recorded[-1]):
        return Answer(given, number, repeated=True), state
    return _out_of_turn(recorded), state


def _final(
    state: State,
    message: Message,
    given: str | None,
    file_id: str,
    recorded: tuple[bytes, ...],
    claims: Claims,
) -> tuple[Expected, State]:
    sent: Mapping[str, str] = message.other_fields
    payload = bytes(message.payload or b"")
    claim = Finished(
        file_id,
        int(sent[FileStoreProp.SEGMENT_NUMBER]),
        payload,
        posixpath.normpath(sent[FileStoreProp.NAME]),
        int(sent[FileStoreProp.SIZE]),
        sent[FileStoreProp.HASH_SHA256].lower(),
    )
    content = b"".join((*recorded, payload))
    in_turn = claim.number == len(recorded) + 1
    matches = (claim.size, claim.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    answered_before = claims.exactly_once and state._remembers(claim)
    stored = Answer(given, claim.number, FileStoreResultProp.STORE)
    too_large = _too_large(recorded, message, claims) if in_turn else None
    # A one-segment file that is not open any more can only be a repeat of the one before.
    if in_turn and matches and not too_large and (recorded or not answered_before):
        refused = _refused_name(state, state.place(claim.path), claims)
        if refused and answered_before and claims.refuses_taken:
            # Its own file is in the way, and it is there: what was sent anew is over.
            return replace(stored, repeated=True), state._without(file_id)
        return (refused, state) if refused else (stored, state._stored(claim, content))
    if answered_before:
        return replace(stored, repeated=True), state
    if too_large:
        return too_large, state
    if in_turn:
        why = "the size or the hash is not that of the bytes received"
        return Refusal(why, ends=True), state._without(file_id)
    return _out_of_turn(recorded), state


def _too_large(recorded: tuple[bytes, ...], message: Message, claims: Claims) -> Refusal | None:
    most = claims.max_file_size
    size = sum(map(len, recorded)) + len(bytes(message.payload or b""))
    if most is None or max(size, int(message.other_fields.get(FileStoreProp.SIZE) or 0)) <= most:
        return None
    return Refusal("the file is larger than it may be")


def _too_many(
    state: State, known: Unfinished | None, payload: bytes, claims: Claims
) -> Refusal | None:
    most = claims.max_transfers
    if known is None and most is not None and len(state.unfinished) >= most:
        return Refusal("there are as many unfinished transfers as there may be")
    received = sum(len(one.content) for one in state.unfinished.values()) + len(payload)
    if claims.max_unfinished_bytes is not None and received > claims.max_unfinished_bytes:
        return Refusal("unfinished transfers would have more bytes than they may")
    return None


def _refused_name(state: State, path: str, claims: Claims) -> Refusal | None:
    if claims.refuses_taken and path in state.files:
        return Refusal("a file has that name")
    if path in state.folders():
        return Refusal("a folder has that name")
    if any(len(os.fsencode(part)) > _LONGEST for part in path.split("/")):
        return Refusal("a part of the name is too long")
    parent = path
    while parent := posixpath.dirname(parent):
        if parent in state.files:
            return Refusal(f"the parent {parent!r} is a file")
    return None


def _out_of_turn(recorded: tuple[bytes, ...]) -> Refusal:
    expected = len(recorded) + 1
    return Refusal(f"segment {expected} is expected", expected=expected)
