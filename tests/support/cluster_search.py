"""A search: one call to a server after the other fails, and each time the promises are looked at.

A *workload* is what senders send.  A worker takes it, and at one of its calls to PostgreSQL or the
object store something happens: the call fails, or its answer is lost, or the worker dies, or it is
paused while others go on in its place.  After that another worker gets what was not answered, as
senders do.  The oracle is ``txstore.testing.model``, and what a reader of the object store, of the
events and of the staging prefix sees at the end.
"""

from __future__ import annotations

import errno
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import psycopg
from cluster_servers import Cluster, fresh_cluster

from txstore import FileStoreManager
from txstore.cluster import cleaning
from txstore.cluster.objects import STAGING
from txstore.errors import FileMismatchError
from txstore.testing import (
    Claims,
    ContractBrokenError,
    Fault,
    Message,
    Refusal,
    SimulatedCrash,
    State,
    Transfer,
    ask,
    cancel,
    segment,
    step,
)
from txstore.testing.model import Expected
from txstore.testing.servers import FaultyServers

#: Seconds that a call may take: far longer than any does, but for those that meet a server that
#: never answers.
LOCK_TIMEOUT = 20.0

_EVERYTHING = Claims.everything()


class Point(NamedTuple):
    """Where something happens, and what.

    :ivar number: of the call, from 1: of those that change something for a worker that dies or is
        paused, and of all for what fails
    :ivar what: ``"fails"``, ``"lost"`` (its answer), ``"dies before"``, ``"dies after"``,
        ``"is paused before"``, ``"is paused after"``
    """

    workload: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.workload}@{self.number}:{self.what}"


# --- what senders send ---------------------------------------------------------------------------

#: Larger than the smallest part, so that it becomes one.
LARGE = bytes(range(256)) * (21 * 1024)

#: A workload: what was sent before, without trouble, and what meets it.  The ids and names begin
#: with what they are given.
Workload = Callable[[str], "tuple[list[Message], list[Message]]"]


def _new(of: str) -> tuple[list[Message], list[Message]]:
    return [], [*Transfer(f"{of}/new", (b"one", b"", b"three"), f"{of}-new").messages()]


def _replaced(of: str) -> tuple[list[Message], list[Message]]:
    old = Transfer(f"{of}/file", (b"old",), f"{of}-old")
    return [*old.messages()], [*Transfer(f"{of}/file", (b"new", b"er"), f"{of}-new").messages()]


def _whole(of: str) -> tuple[list[Message], list[Message]]:
    return [], [*Transfer(f"{of}/whole", (b"whole",), f"{of}-whole").messages()]


def _whole_replaced(of: str) -> tuple[list[Message], list[Message]]:
    old = Transfer(f"{of}/file", (b"old",), f"{of}-old")
    return [*old.messages()], [*Transfer(f"{of}/file", (b"new",), f"{of}-new").messages()]


def _cancelled(of: str) -> tuple[list[Message], list[Message]]:
    return [], [segment(1, b"some", f"{of}-gone"), cancel(f"{of}-gone")]


def _mismatched(of: str) -> tuple[list[Message], list[Message]]:
    wrong = Transfer(f"{of}/wrong", (b"one", b"two"), f"{of}-wrong").messages()[1]
    fields = {**wrong.other_fields, "hash_sha256": "0" * 64}
    return [segment(1, b"one", f"{of}-wrong")], [Message(wrong.payload, fields)]


def _parts(of: str) -> tuple[list[Message], list[Message]]:
    """A part of its own, a tail before one, and the tail of the last message."""
    sent = Transfer(f"{of}/parts", (LARGE, b"tail", LARGE, b"end"), f"{of}-parts")
    return [], [*sent.messages()]


def _parts_cancelled(of: str) -> tuple[list[Message], list[Message]]:
    return [], [segment(1, LARGE, f"{of}-parts"), cancel(f"{of}-parts")]


WORKLOADS: dict[str, Workload] = {
    "new": _new,
    "replaced": _replaced,
    "whole": _whole,
    "whole replaced": _whole_replaced,
    "cancelled": _cancelled,
    "mismatched": _mismatched,
    "parts": _parts,
    "parts cancelled": _parts_cancelled,
}


# --- workers -------------------------------------------------------------------------------------


class PausedServers(FaultyServers):
    """Stops its worker at one of the calls that change something, until it is told to go on.

    :ivar reached: it has stopped
    """

    def __init__(self) -> None:
        super().__init__()
        self._point: Fault | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()

    def pause_at(self, number: int, *, after: bool) -> None:
        """Of the calls from now on."""
        self._point = Fault("change", number, after=after)

    def _made(self, call: str, *more: Any) -> Any:
        point = self._point
        if point is None or not point.strikes(call, ""):
            return super()._made(call, *more)
        made = super()._made(call, *more) if point.after else None
        self.reached.set()
        assert self.go_on.wait(60)
        return made if point.after else super()._made(call, *more)

    def end_sessions(self) -> None:
        """Have PostgreSQL end the sessions of a worker that it takes for dead: those that somebody
        may be waiting for."""
        with self._mutex:
            alive = [one for one in self._connections if not one.closed]
        if alive:
            with psycopg.connect(alive[0].info.dsn, autocommit=True) as connection:
                connection.execute(_END, [[one.info.backend_pid for one in alive]])


_END = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity AS one
    WHERE pid = ANY(%s) AND (state <> 'idle' OR EXISTS (
        SELECT FROM pg_locks WHERE pg_locks.pid = one.pid AND locktype = 'advisory'))
"""


class Search:
    """Points of workloads, one after another over one cluster, each under names of its own.

    :ivar looked: how many points of which kind were looked at
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.looked = cluster, Counter[str]()
        self._other = self._open(FaultyServers())
        self._worker, self._servers = self._other, FaultyServers()
        self._fresh()
        self._tries = 0

    @classmethod
    @contextmanager
    def begun(cls) -> Iterator[Search]:
        # Cleaning up is for what is looked at, when it is looked at.
        with fresh_cluster() as cluster, mock.patch.object(cleaning, "_INTERVAL", math.inf):
            search = cls(cluster)
            try:
                yield search
            finally:
                search._other.close()
                search._servers.bury()

    def _open(self, servers: FaultyServers) -> FileStoreManager:
        where = f"{self.cluster.storage_dir}&part_size=5MiB"
        return FileStoreManager(
            where, self.cluster.working_dir, lock_timeout=LOCK_TIMEOUT, disk=servers
        )

    def _fresh(self) -> None:
        self._servers = FaultyServers()
        self._worker = self._open(self._servers)

    # --- where something can happen --------------------------------------------------------------

    def points(self, name: str) -> list[Point]:
        """All points of a workload; it is carried out once, without trouble."""
        history: list[tuple[str, str]] = []
        sender = self._begin(name)
        self._servers.faults.watch = lambda call, about: history.append((call, about))
        sender.send_all(self._worker)
        self._servers.faults.watch = None
        self._check(Point(name, 0, "well"), sender)
        changes = sum(Fault("change").strikes(call, "") for call, _ in history)
        return [
            *(Point(name, number, "dies before") for number in range(1, changes + 1)),
            *(Point(name, number, "dies after") for number in range(1, changes + 1)),
            *(Point(name, number, "is paused before") for number in range(1, changes + 1)),
            *(Point(name, number, "is paused after") for number in range(1, changes + 1)),
            *(Point(name, number, "fails") for number in range(1, len(history) + 1)),
            *(Point(name, number, "lost") for number in range(1, len(history) + 1)),
        ]

    def look_at(self, point: Point) -> None:
        """Have it happen, and see that every promise is kept.

        :raises PromiseBrokenError: one is not
        """
        sender = self._begin(point.workload)
        if point.what.startswith("is paused"):
            self._pause(point, sender)
        else:
            self._strike(point, sender)
        self._check(point, sender)
        what = {"fails": "a call fails", "lost": "an answer is lost"}
        self.looked[f"points where {what.get(point.what, f'a worker {point.what}')}"] += 1

    def _begin(self, name: str) -> Sender:
        self._tries += 1
        before, messages = WORKLOADS[name](f"t{self._tries}")
        sender = Sender(messages)
        for message in before:
            sender.put(self._other, message)
        return sender

    def _strike(self, point: Point, sender: Sender) -> None:
        if point.what.startswith("dies"):
            fault = Fault("change", point.number, None, after=point.what == "dies after")
        else:
            fault = Fault("*", point.number, errno.ECONNRESET, after=point.what == "lost")
        self._servers.faults.add(fault)
        worker = self._worker
        for message in sender.messages:
            if not self._through(point, sender, worker, message):
                # Before the other one settles anything.
                self._readers_see_whole_files(point, sender)
                if self._servers.dead:
                    self._servers.bury()
                    worker = self._other
                sender.put_again(worker, message, point)
        self._servers.faults.clear()
        if self._servers.dead:
            self._fresh()

    def _through(
        self, point: Point, sender: Sender, worker: FileStoreManager, message: Message
    ) -> bool:
        try:
            sender.put(worker, message, point)
        except SimulatedCrash:
            return False
        except OSError as error:
            if point.what != "fails":
                broken(6, f"{point}: one lost answer was told to the sender: {error!r}")
            return False
        return True

    def _pause(self, point: Point, sender: Sender) -> None:
        """A worker is paused, taken for dead, and comes back when everything is over."""
        servers = PausedServers()
        worker, told, sent = self._open(servers), list[BaseException](), list[Message]()
        servers.pause_at(point.number, after=point.what == "is paused after")

        def work() -> None:
            try:
                for message in sender.messages:
                    sent.append(message)
                    worker.store_segment(message)
                    if servers.reached.is_set():
                        return  # the others were sent elsewhere
            except (OSError, ValueError) as error:
                told.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while not servers.reached.wait(0.01):
            if not thread.is_alive():
                broken(6, f"{point}: it ended before it was paused: {told}")
        for message in sent[:-1]:
            sender.note(message)
        self._readers_see_whole_files(point, sender, sent[-1])
        servers.end_sessions()
        self._go_on(point, sender, len(sent) - 1)
        sender.late = [step(sender.state, sent[-1], _EVERYTHING)[1]]
        servers.go_on.set()
        thread.join(60)
        if thread.is_alive():
            broken(7, f"{point}: it never ends")
        worker.close()

    def _go_on(self, point: Point, sender: Sender, first: int) -> None:
        """Another worker takes what is left, and then other files under the same names, so that an
        older one would be seen."""
        for message in sender.messages[first:]:
            sender.put_again(self._other, message, point)
        for number, name in enumerate(sorted(sender.state.files)):
            for message in Transfer(name, (b"later", b""), f"{sender.of}-later{number}").messages():
                sender.put(self._other, message, point)

    # --- the oracle ------------------------------------------------------------------------------

    def _readers_see_whole_files(self, point: Point, sender: Sender, *more: Message) -> None:
        files = self._files(sender)
        possible = [sender.state.files]
        possible += [step(sender.state, one, _EVERYTHING)[1].files for one in sender.pending(*more)]
        if files not in possible:
            broken(
                2, f"{point}: readers see {_short(files)} instead of {list(map(_short, possible))}"
            )

    def _files(self, sender: Sender) -> dict[str, bytes]:
        return self.cluster.files(f"{sender.of}/")

    def _check(self, point: Point, sender: Sender) -> None:
        files = self._files(sender)
        if files != sender.state.files:
            broken(1, f"{point}: {_short(files)} is there instead of {_short(sender.state.files)}")
        self._other.expire()  # what was left is removed, and what was left open is settled
        if self._files(sender) != files:
            broken(2, f"{point}: cleaning up changed what readers see")
        unfinished = [one.file_id for one in self._other.transfers(f"{sender.of}-")]
        if unfinished not in [list(one.unfinished) for one in (sender.state, *sender.late)]:
            broken(4, f"{point}: open are {unfinished}")
        for file_id in unfinished:
            self._other.cancel(file_id)
            sender.ended["cancelled", file_id] += 1
        ended = Counter(
            self.cluster.rows(
                f"SELECT kind, file_id FROM event WHERE starts_with(file_id, '{sender.of}-')"
            )
        )
        if ended != sender.ended:
            broken(4, f"{point}: events are {dict(ended)} instead of {dict(sender.ended)}")
        # A worker may be sending one for an hour: its row says so.
        left, rows = self.cluster.keys(STAGING), self.cluster.rows("SELECT key FROM part")
        if orphans := [one for one in left if (one,) not in rows]:
            broken(9, f"{point}: orphans are left: {orphans}")


class _Asked(NamedTuple):
    """A store as far as it is asked."""

    store_segment: Callable[[Message], Any]


class Sender:
    """One that sends again what was not answered, and what the contract says of its store.

    :ivar state: what the store holds of this sender's
    :ivar late: what it may hold as well, since a message came late once more
    :ivar ended: how its transfers ended: each must be one event
    """

    def __init__(self, messages: list[Message]) -> None:
        self.messages, self.state = messages, State()
        self.late: list[State] = []
        self.ended = Counter[tuple[str, str]]()
        self._pending: list[Message] = []

    @property
    def of(self) -> str:
        """What its names and ids begin with."""
        file_id: str = self.messages[0].other_fields["file_id"]
        return file_id.partition("-")[0]

    def pending(self, *more: Message) -> list[Message]:
        """What was sent and not answered."""
        return [*self._pending, *more]

    def send_all(self, store: FileStoreManager) -> None:
        """Send everything."""
        for message in self.messages:
            self.put(store, message)

    def put(self, store: FileStoreManager, message: Message, point: object = "") -> None:
        """Send a message, and see that it is answered as it must be."""
        self._pending = [message]
        expected, _ = step(self.state, message, _EVERYTHING)
        self._ask(store, message, point, expected)

    def put_again(self, store: FileStoreManager, message: Message, point: object) -> None:
        """Send a message of which nobody knows whether it was carried out."""
        expected, after = step(self.state, message, _EVERYTHING)
        again, _ = step(after, message, _EVERYTHING)
        self._ask(store, message, point, expected, again)

    def _ask(
        self, store: FileStoreManager, message: Message, point: object, *expected: Expected
    ) -> None:
        error: ValueError | None = None

        def store_segment(message: Message) -> Any:
            nonlocal error
            try:
                return store.store_segment(message)
            except ValueError as raised:
                error = raised
                raise

        try:
            ask(_Asked(store_segment), message, *expected)
        except ContractBrokenError as broke:
            broken(4, f"{point}: {broke}")
        [first, *others] = expected
        ends = isinstance(first, Refusal) and first.ends and not others
        # Not that its number is wrong, which it only is once the transfer has ended.
        if ends and not isinstance(error, FileMismatchError):
            broken(4, f"{point}: a file that does not match was refused with {error!r}")
        self.note(message)

    def note(self, message: Message) -> None:
        """A message was carried out."""
        before = self.state
        _, self.state = step(before, message, _EVERYTHING)
        self._pending = []
        file_id = message.other_fields["file_id"]
        if len(self.state.finished) > len(before.finished):
            self.ended["stored", file_id] += 1
        elif message.other_fields.get("result") == "cancel" and file_id in before.unfinished:
            self.ended["cancelled", file_id] += 1


class PromiseBrokenError(AssertionError):
    """A promise was seen broken; the text begins with which."""


def broken(promise: int, text: str) -> NoReturn:
    raise PromiseBrokenError(f"promise {promise}: {text}")


def _short(files: Any) -> dict[str, bytes]:
    return {name: content[:20] for name, content in files.items()}
