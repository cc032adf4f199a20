"""``StoreContract``: any store held to as much of the contract as it claims."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from txstore.constants import FileStoreProp, FileStoreResultProp
from txstore.testing.checking import (
    ContractBrokenError,
    Seen,
    ask,
    check_catalogue,
    check_events,
    check_seen,
    look,
)
from txstore.testing.crashing import CrashingStore, NewDisk, Setup
from txstore.testing.faults import Fault, FaultPlan, SimulatedCrash
from txstore.testing.faulty import FaultyDisk
from txstore.testing.messages import Message, Store, Transfer, cancel, segment
from txstore.testing.model import Answer, Claims, Expected, Refusal, State, step
from txstore.testing.scratch import scratch_folder
from txstore.testing.strategies import (
    InvalidRequest,
    contents,
    crashes,
    disk_errors,
    invalid_requests,
)

Rule = TypeVar("Rule", bound=Callable[..., None])

# Few of each, so that transfers meet: under one name, under one id again, in one worker.
_IDS = st.sampled_from(["a", "A"])
_NAMES = st.sampled_from(["one", "sub/one", "./sub//one", "sub/deep/one"])
_WORKERS = st.integers(0, 2)
_PAYLOADS = contents(max_size=600)


@dataclass(frozen=True)
class _Planned:
    """A message that is made when it is sent.

    :ivar before: segments that go before it without trouble
    """

    kind: str
    file_id: str
    name: str
    payload: bytes
    before: int


_PLANNED = st.builds(
    _Planned,
    kind=st.sampled_from(["final", "segment", "cancel"]),
    file_id=_IDS,
    name=_NAMES,
    payload=_PAYLOADS,
    before=st.integers(0, 2),
)


def _claimed(part: str) -> Callable[[Rule], Rule]:
    """A rule for stores that claim this part."""
    return precondition(lambda machine: getattr(machine.claims, part))


class StoreContract(RuleBasedStateMachine):
    """Holds a store to the contract.  Say which, and what it claims, and let pytest find it::

        class MyStoreContract(StoreContract):
            claims = Claims(resumes=True)

            def open_store(self, setup: Setup) -> Store:
                return MyStore(setup.storage_dir)

        TestMyStore = MyStoreContract.TestCase

    Every rule is a thing that senders, workers or the disk do; after each the answer and the
    storage are compared with those of ``txstore.testing.model.step``.  Rules and invariants can be
    added as to any ``RuleBasedStateMachine``.

    :cvar claims: what the store says of itself; what it does not say is not asked of it
    :cvar new_disk: makes that by which faults reach a worker's store
    :cvar errors: what goes wrong with the disk
    :cvar crashes: where workers die
    :cvar replacing: where they die while a file is replaced
    :ivar state: what the contract says that the store holds
    :ivar workers: the stores that are open; one, unless several are claimed
    """

    claims: ClassVar[Claims] = Claims()
    new_disk: ClassVar[NewDisk] = FaultyDisk
    errors: ClassVar[st.SearchStrategy[Fault]] = disk_errors()
    crashes: ClassVar[st.SearchStrategy[Fault]] = crashes()
    replacing: ClassVar[st.SearchStrategy[Fault]] = st.builds(
        Fault,
        st.sampled_from(["rename", "link", "unlink"]),
        st.integers(1, 2),
        st.none(),
        after=st.booleans(),
    )

    def open_store(self, setup: Setup) -> Store:
        """Open a store over ``setup.storage_dir``, its working dir the default one."""
        raise NotImplementedError(f"{type(self).__name__} must say how its store is opened")

    def seen(self) -> Seen:
        """What a reader of the storage sees."""
        return look(self.storage_dir)

    @classmethod
    def of(cls, open_store: Callable[[Setup], Store], claims: Claims) -> type[StoreContract]:
        """The contract of a store, where no class of its own is wanted."""
        members = {"claims": claims, "open_store": staticmethod(open_store)}
        return type(f"{cls.__name__}Of", (cls,), members)

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.storage_dir = self._stack.enter_context(scratch_folder())
        self.state = State()
        self._answered: dict[str, Message] = {}
        self._carried_out: list[Message] = []
        self.workers: list[CrashingStore[Store]] = []
        self._add_worker()

    def teardown(self) -> None:
        """Close the stores and remove their folder."""
        self._stack.close()

    def _add_worker(self) -> None:
        worker = CrashingStore(self.storage_dir, self.open_store, type(self).new_disk)
        self.workers.append(self._stack.enter_context(worker))
        wants_faults = self.claims.survives_errors or self.claims.survives_crashes
        if wants_faults and not worker.faults.calls:
            raise TypeError(
                "No fault can reach this store: open_store must open it with disk=setup.disk, or"
                " claim neither survives_errors nor survives_crashes."
            )

    def _worker(self, index: int) -> CrashingStore[Store]:
        return self.workers[index % len(self.workers)]

    # --- one message -------------------------------------------------------------------------

    def put(self, message: Message, worker: int = 0) -> Any:
        """Put a message to a store, and see that it does what the contract says.

        :return: the answer; ``None`` where it was refused, as it had to be
        """
        possible = self._possible(self.state, message)
        answer = self._ask(message, worker, *(one for one, _ in possible))
        if answer is not None and not message.other_fields.get(FileStoreProp.ID):
            _check_fresh(answer.file_id, self.state)
            possible = [step(self.state, message, self.claims, assigned=answer.file_id)]
        self._happened(message, answer, possible)
        return answer

    def _ask(self, message: Message, worker: int, *expected: Expected) -> Any:
        try:
            return ask(self._worker(worker).store, message, *expected)
        except OSError as error:
            raise ContractBrokenError(
                "a disk that does not fail is enough", f"{message!r:.300} raised {error!r}"
            ) from error

    def _possible(self, state: State, message: Message) -> list[tuple[Expected, State]]:
        """What a message may be answered, and the states after that."""
        # Who does not claim to answer repeats may do so all the same.
        more = replace(self.claims, exactly_once=True)
        return [step(state, message, claims) for claims in dict.fromkeys((self.claims, more))]

    def _happened(
        self, message: Message, answer: Any, possible: list[tuple[Expected, State]]
    ) -> None:
        """Take down what a message did, and remember it if it may be sent again."""
        fitting = [one for one in possible if isinstance(one[0], Answer) == (answer is not None)]
        expected, state = (fitting or possible)[0]
        for another in fitting[1:]:
            if another[1].files != state.files and self.seen().files == another[1].files:
                expected, state = another
        self.state = state
        if isinstance(expected, Refusal) or expected.file_id is None:
            return
        if expected.file_result is None:
            self._answered[expected.file_id] = message
        elif expected.file_result == FileStoreResultProp.STORE and not expected.repeated:
            self._carried_out.append(message)

    def _next(self, file_id: str, payload: bytes) -> Message:
        return segment(self.state.next_number(file_id), payload, file_id)

    def _final(self, file_id: str, name: str, payload: bytes) -> Message:
        known = self.state.unfinished.get(file_id)
        segments = (*(known.segments if known else ()), payload)
        return Transfer(name, segments, file_id).message(len(segments))

    # --- senders -----------------------------------------------------------------------------

    @rule(file_id=_IDS, payload=_PAYLOADS, worker=_WORKERS)
    def send_next_segment(self, file_id: str, payload: bytes, worker: int) -> None:
        """The next segment of a transfer, or the first of a new one."""
        self.put(self._next(file_id, payload), worker)

    @rule(file_id=_IDS, name=_NAMES, payload=_PAYLOADS, worker=_WORKERS)
    def send_final_segment(self, file_id: str, name: str, payload: bytes, worker: int) -> None:
        """The last segment of a transfer, or a file in one segment."""
        self.put(self._final(file_id, name, payload), worker)

    @rule(name=_NAMES, payloads=st.lists(_PAYLOADS, min_size=1, max_size=3), worker=_WORKERS)
    def send_file_without_id(self, name: str, payloads: list[bytes], worker: int) -> None:
        """A whole file under an id that the store assigns."""
        transfer, file_id = Transfer(name, tuple(payloads)), None
        for number in range(1, len(payloads) + 1):
            answer = self.put(transfer.message(number, file_id), worker + number)
            if answer is None:
                # Nobody else knows its id: it would count for the limits for ever.
                if file_id is not None:
                    self.put(cancel(file_id))
                return
            file_id = answer.file_id

    @rule(file_id=_IDS, worker=_WORKERS)
    def send_cancel(self, file_id: str, worker: int) -> None:
        """A cancel, of an unfinished transfer or of none."""
        self.put(cancel(file_id), worker)

    @rule(file_id=_IDS, number=st.integers(1, 6), payload=_PAYLOADS, worker=_WORKERS)
    def send_any_number(self, file_id: str, number: int, payload: bytes, worker: int) -> None:
        """A segment that is in turn only by chance: a late copy, or one that overtook others."""
        self.put(segment(number, payload, file_id), worker)

    @rule(file_id=_IDS, worker=_WORKERS)
    def send_last_segment_again(self, file_id: str, worker: int) -> None:
        """The answer to a segment was lost, so that it comes again; perhaps too late."""
        if file_id in self._answered:
            self.put(self._answered[file_id], worker)

    @precondition(lambda self: self._carried_out)
    @rule(data=st.data(), shout=st.booleans(), worker=_WORKERS)
    def send_final_again(self, data: st.DataObject, shout: bool, worker: int) -> None:
        """The answer to a last message was lost, so that it comes again, now or much later."""
        message = data.draw(st.sampled_from(self._carried_out))
        sent = dict(message.other_fields)
        if shout and self.claims.exactly_once:
            sent.update(hash_sha256=sent["hash_sha256"].upper(), name=f"./{sent['name']}")
        self.put(Message(message.payload, sent), worker)

    @rule(
        file_id=_IDS,
        payload=_PAYLOADS,
        wrong=st.sampled_from([{"size": "7000"}, {"hash_sha256": "0" * 64}]),
        worker=_WORKERS,
    )
    def send_final_that_does_not_match(
        self, file_id: str, payload: bytes, wrong: dict[str, str], worker: int
    ) -> None:
        """A last message whose size or hash is not that of the bytes ends its transfer."""
        # Not every store checks the hash of an empty file.
        message = self._final(file_id, "wrong", payload + b"!")
        self.put(Message(message.payload, {**message.other_fields, **wrong}), worker)

    # --- workers -----------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        """All workers are closed in order; a new one takes over."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self._add_worker()
        if not self.claims.resumes:
            # Who does not claim to resume may do so all the same: nobody goes on from here.
            for file_id in self.state.unfinished:
                self.workers[0].store.store_segment(cancel(file_id))
            self.state = replace(self.state, unfinished={})

    @_claimed("several_workers")
    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def open_another_worker(self) -> None:
        """One more store over the same folders, while others have transfers open."""
        self._add_worker()

    # --- what must be refused, and what must be taken -----------------------------------------

    @_claimed("refuses_cleanly")
    @rule(request=invalid_requests(), worker=_WORKERS)
    def send_invalid_request(self, request: InvalidRequest, worker: int) -> None:
        """A message with something wrong that no state makes right."""
        wrong = Refusal(f"the field {request.field!r} is {request.why}")
        self._ask(request.message, worker, wrong)

    @_claimed("refuses_cleanly")
    @precondition(lambda self: self.state.files)
    @rule(data=st.data(), planned=_PLANNED, worker=_WORKERS)
    def send_final_with_impossible_name(
        self, data: st.DataObject, planned: _Planned, worker: int
    ) -> None:
        """A last message whose name a folder has, or whose parent is a file, can be corrected."""
        impossible = [f"{path}/below" for path in self.state.files] + [*self.state.folders()]
        name = data.draw(st.sampled_from(sorted(impossible)), label="name")
        for one in (name, "corrected"):
            self.put(self._make(replace(planned, kind="final", name=one)), worker)
            planned = replace(planned, before=0)

    # --- the disk ----------------------------------------------------------------------------

    @_claimed("survives_errors")
    @rule(data=st.data(), planned=_PLANNED, restart=st.booleans(), worker=_WORKERS)
    def send_while_the_disk_fails(
        self, data: st.DataObject, planned: _Planned, restart: bool, worker: int
    ) -> None:
        """A message meets an error of the disk, and is sent again when the disk is well."""
        message, fault = self._make(planned), data.draw(self.errors, label="fault")
        if not self._went_through(message, worker, fault):
            if restart and self.claims.resumes:
                self._worker(worker).restart()
            self._put_again(message, worker)

    @_claimed("survives_crashes")
    @rule(data=st.data(), planned=_PLANNED, again=st.integers(1, 16), worker=_WORKERS)
    def crash(self, data: st.DataObject, planned: _Planned, again: int, worker: int) -> None:
        """A worker dies at a message, perhaps its successor while it opens, and another goes on."""
        message, fault = self._make(planned), data.draw(self.crashes, label="fault")
        self._crash(message, worker, fault, again)

    @_claimed("survives_crashes")
    @precondition(lambda self: self.state.files)
    @rule(data=st.data(), planned=_PLANNED, worker=_WORKERS)
    def crash_while_a_file_is_replaced(
        self, data: st.DataObject, planned: _Planned, worker: int
    ) -> None:
        """A worker dies where the old file gives way to the new one: few crashes are just there."""
        name = data.draw(st.sampled_from(sorted(self.state.files)), label="name")
        message = self._make(replace(planned, kind="final", name=name))
        self._crash(message, worker, data.draw(self.replacing, label="fault"), 1)

    def _crash(self, message: Message, worker: int, fault: Fault, again: int) -> None:
        if self._went_through(message, worker, fault):
            return
        crashing = self._worker(worker)
        try:
            crashing.restart(FaultPlan(Fault("change", again)))
        except SimulatedCrash:
            crashing.restart()
        crashing.faults.clear()
        self._put_again(message, worker)

    @_claimed("survives_errors")
    @rule(file_id=_IDS, worker=_WORKERS)
    def cancel_on_a_full_disk(self, file_id: str, worker: int) -> None:
        """Giving up is what frees space, so it must not need any."""
        disk = self._worker(worker).disk
        disk.full = True
        try:
            self.put(cancel(file_id), worker)
        finally:
            disk.full = False

    def _make(self, planned: _Planned) -> Message:
        for number in range(planned.before):
            self.put(self._next(planned.file_id, b"before"), number)
        if planned.kind == "final":
            return self._final(planned.file_id, planned.name, planned.payload)
        if planned.kind == "segment":
            return self._next(planned.file_id, planned.payload)
        return cancel(planned.file_id)

    def _went_through(self, message: Message, worker: int, fault: Fault) -> bool:
        """Put a message to a store whose disk may fail; if it does, see that nobody sees more than
        the file that was there or the file that is coming."""
        crashing = self._worker(worker)
        possible = self._possible(self.state, message)
        crashing.faults.add(fault)
        try:
            answer = ask(crashing.store, message, *(one for one, _ in possible))
        except (OSError, SimulatedCrash):
            check_seen(self.seen(), self.state, *(after for _, after in possible))
            return False
        finally:
            crashing.faults.clear()
        self._happened(message, answer, possible)
        return True

    def _put_again(self, message: Message, worker: int) -> None:
        """The sender, whom no answer reached, sends the same once more."""
        possible = self._possible(self.state, message)
        # The first one may have been carried out.
        again = [one for _, after in possible for one, _ in self._possible(after, message)]
        answer = self._ask(message, worker, *(one for one, _ in possible), *again)
        self._happened(message, answer, possible)

    # --- what holds at any time -----------------------------------------------------------------

    @invariant()
    def storage_holds_whole_files_only(self) -> None:
        """Every file that was stored is there, whole, and nothing else is."""
        check_seen(self.seen(), self.state)

    @_claimed("tells_events")
    @invariant()
    def each_end_has_one_event(self) -> None:
        """What was stored or cancelled is told once, and in that order."""
        check_events(self._worker(0).store, self.state)

    @_claimed("catalogues")
    @invariant()
    def catalogue_has_each_stored_file(self) -> None:
        """What is stored is in the catalogue as it is, and nothing else is."""
        check_catalogue(self._worker(0).store, self.state)


def _check_fresh(file_id: str, state: State) -> None:
    """See that an id which the store assigned is a lower-case uuid4 that is not in use."""
    try:
        proper = str(uuid.UUID(file_id, version=4)) == file_id
    except ValueError:
        proper = False
    if not proper or file_id in state.unfinished:
        raise ContractBrokenError("the store assigns a fresh id", f"{file_id!r} was assigned")
