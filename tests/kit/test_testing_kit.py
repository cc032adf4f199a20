"""``txstore.testing`` does what it says: its strategies, its contract, its faults, its fixtures."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import os
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from support import FULL, at_each_level, descriptors
from users import ROOT, run_pytest

from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.disk import Disk
from txstore.errors import OptionError, RequestError
from txstore.limits import Limits
from txstore.options import Level
from txstore.testing import (
    Answer,
    Claims,
    ContractBrokenError,
    CrashingStore,
    Fault,
    FaultPlan,
    FaultyDisk,
    Message,
    Refusal,
    Setup,
    SimulatedCrash,
    State,
    StoreContract,
    Transfer,
    ask,
    cancel,
    check_storage,
    crashing_store,
    fresh_store,
    segment,
    step,
    strategies,
)
from txstore.testing.messages import Store

# --- strategies generate what they say -----------------------------------------------------------


def examples(strategy: st.SearchStrategy[Any], many: int = 300) -> list[Any]:
    """Some values of a strategy, the same in every run."""
    found: list[Any] = []

    @settings(max_examples=many, derandomize=True, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def test_contents_reach_the_edges_and_keep_the_limit() -> None:
    found = examples(strategies.contents(max_size=5000))
    sizes = {len(content) for content in found}
    assert max(sizes) <= 5000
    assert sizes >= {0, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097}
    assert any(len(content) > 512 and not any(content) for content in found)
    assert any(len(set(content)) > 100 for content in found)


@given(st.data(), st.binary(max_size=50))
def test_segmentations_are_the_content_cut_up(data: st.DataObject, content: bytes) -> None:
    segments = data.draw(strategies.segmentations(content, min_segments=2, max_segments=4))
    assert b"".join(segments) == content
    assert 2 <= len(segments) <= 4


def test_segmentations_have_empty_segments_everywhere() -> None:
    found = [one for one in examples(strategies.segmentations(b"some bytes")) if len(one) > 2]
    assert {True, False} == {one[0] == b"" for one in found} == {one[-1] == b"" for one in found}
    assert any(b"" in one[1:-1] for one in found)


@given(request=strategies.valid_requests())
def test_valid_requests_are_taken_by_an_empty_store(request: Message) -> None:
    with fresh_store() as store:
        answer = store.store_segment(request)
        assert answer.file_id == (request.other_fields.get("file_id") or answer.file_id)


def test_valid_requests_come_in_every_spelling() -> None:
    found = examples(strategies.valid_requests())
    assert {type(one.payload) for one in found} == {bytes, bytearray, memoryview, type(None)}
    numbers = {repr(one.other_fields.get("segment_number")) for one in found}
    assert numbers >= {"1", "'1'", "' 1 '", "'01'", "'+1'", "None"}
    assert {one.other_fields.get("result") for one in found} == {"store", "cancel", "", None}


@given(invalid=strategies.invalid_requests(), number=st.integers(0, 2))
def test_invalid_requests_are_refused_and_change_nothing(
    invalid: strategies.InvalidRequest, number: int
) -> None:
    with fresh_store() as store:
        known = Transfer("file", (b"1", b"2", b"3"), "known")
        for message in known.messages()[:number]:
            store.store_segment(message)
        before = store.transfers()
        with pytest.raises(RequestError) as refused:
            store.store_segment(invalid.message)
        if invalid.field != "name":
            assert vars(refused.value)["field"] == invalid.field
        assert store.transfers() == before
        check_storage(Path(store.storage_dir), State())


def test_invalid_requests_are_wrong_in_every_way() -> None:
    found = examples(strategies.invalid_requests(), 500)
    ways = Counter((one.field, one.why) for one in found)
    assert {field for field, _ in ways} == {
        *("segment_number", "file_id", "name", "size", "hash_sha256", "result"),
        *("payload", "other_fields"),
    }
    assert len(ways) == 23


@given(transfer=strategies.transfers())
def test_transfers_are_stored_as_they_say(transfer: Transfer) -> None:
    with fresh_store() as store:
        answer = transfer.send(store)
        assert (answer.file_id, answer.file_result) == (transfer.file_id, "store")
        path = os.path.normpath(os.path.join(store.storage_dir, transfer.name))
        assert Path(path).read_bytes() == transfer.content


@given(deliveries=strategies.interleavings(workers=2))
def test_interleavings_are_answered_as_they_say(deliveries: list[strategies.Delivery]) -> None:
    with fresh_store() as first, FileStoreManager(first.storage_dir, durability="none") as second:
        state = State()
        for one in deliveries:
            ask((first, second)[one.worker], one.message, one.expected)
            _, state = step(state, one.message, Claims.everything())
        check_storage(Path(first.storage_dir), state)
        assert {one.file_id for one in first.transfers()} == set(state.unfinished)


def test_interleavings_have_all_the_trouble_that_a_broker_makes() -> None:
    found = examples(strategies.interleavings(workers=3), 80)
    deliveries = [one for several in found for one in several]
    assert {one.worker for one in deliveries} == {0, 1, 2}
    happened = {one.happened.split()[1] for one in deliveries}
    assert len({one.happened for one in deliveries}) == 4, happened
    repeats = [one for one in deliveries if isinstance(one.expected, Answer)]
    assert {one.expected.repeated for one in repeats} == {True, False}
    assert any(isinstance(one.expected, Refusal) for one in deliveries)
    left = [state_after(several) for several in found]
    assert any(state.unfinished for state in left)
    assert any(len(state.files) > 1 for state in left)


def state_after(deliveries: list[strategies.Delivery]) -> State:
    state = State()
    for one in deliveries:
        _, state = step(state, one.message, Claims.everything())
    return state


def test_faults_from_hypothesis_strike_stores() -> None:
    faults = examples(st.one_of(strategies.disk_errors(), strategies.crashes()), 300)
    struck = Counter(kind for fault in faults if (kind := what_strikes(fault)))
    assert min(struck[SimulatedCrash], struck[OSError]) > 20, struck


def what_strikes(fault: Fault) -> type[BaseException] | None:
    """What a sender of two segments notices of a fault."""
    with crashing_store() as crashing:
        crashing.faults.add(fault)
        try:
            Transfer("sub/file", (b"1", b"2"), "id").send(crashing.store)
        except SimulatedCrash:
            return SimulatedCrash
        except OSError:
            return OSError
        return None


# --- a file on its way --------------------------------------------------------------------------


def test_a_transfer_of_equal_segments_has_the_rest_in_the_last() -> None:
    assert Transfer.of(b"abcde", "name", segment_size=2).segments == (b"ab", b"cd", b"e")
    assert Transfer.of(b"", "name").segments == (b"",)


def test_a_transfer_goes_on_where_it_was() -> None:
    with fresh_store() as store:
        transfer = Transfer("file", (b"1", b"2", b"3"))
        file_id = store.store_segment(transfer.message(1)).file_id
        assert transfer.send(store, first=2, file_id=file_id).segments_received == 3


# --- the contract holds for txstore, and finds what is wrong with others -------------------------


def hold(contract: type[StoreContract], many: int) -> None:
    """Hold a store to its contract, with the same examples in every run."""
    run_state_machine_as_test(
        contract,
        settings=settings(
            max_examples=many * 10 if FULL else many,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            # An expected failure is not worth shrinking.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@at_each_level
def test_the_contract_holds_for_txstore(level: Level) -> None:
    def open_store(setup: Setup) -> FileStoreManager:
        return FileStoreManager(setup.storage_dir, durability=level, disk=setup.disk)

    hold(StoreContract.of(open_store, Claims.everything()), 15)


LIMITED = replace(
    Claims.everything(),
    refuses_taken=True,
    max_file_size=900,
    max_transfers=1,
    max_unfinished_bytes=1000,
)


@at_each_level
def test_the_contract_holds_for_txstore_with_limits_and_without_replacing(level: Level) -> None:
    def open_store(setup: Setup) -> FileStoreManager:
        limits = Limits(max_file_size=900, max_transfers=1, max_unfinished_bytes=1000)
        return FileStoreManager(
            setup.storage_dir,
            durability=level,
            disk=setup.disk,
            limits=limits,
            on_exists="refuse",
        )

    hold(StoreContract.of(open_store, LIMITED), 8)


class TakesAnyNumber(FileStoreManager):
    """Does not look at the number of a plain segment."""

    def store_segment(self, message: Any) -> Any:
        fields = dict(message.other_fields)
        known = self.status(fields["file_id"]) if "file_id" in fields else None
        if known and "result" not in fields:
            fields["segment_number"] = str(known.segments_received + 1)
        return super().store_segment(Message(message.payload, fields))


class LeavesAFileBehind(FileStoreManager):
    """Has temporary files where readers see them."""

    def store_segment(self, message: Any) -> Any:
        Path(self.storage_dir, "temporary").write_bytes(b"")
        return super().store_segment(message)


class TrustsTheSender(FileStoreManager):
    """Does not compare size and hash."""

    def store_segment(self, message: Any) -> Any:
        try:
            return super().store_segment(message)
        except RequestError:
            if message.other_fields.get("result") != "store":
                raise
        Path(self.storage_dir, "wrong").write_bytes(message.payload)
        return FileStoreSegmentResult(message.other_fields["file_id"], 1, "store")


class KeepsTheTransferThatDoesNotMatch(FileStoreManager):
    """Goes on after a last message whose hash is wrong."""

    def store_segment(self, message: Any) -> Any:
        fields = message.other_fields
        if fields.get("name") == "wrong":
            raise ValueError("try again")
        return super().store_segment(message)


class TellsTheWrongNextNumber(FileStoreManager):
    """Names another segment than the one it waits for."""

    def store_segment(self, message: Any) -> Any:
        try:
            return super().store_segment(message)
        except RequestError as error:
            if hasattr(error, "expected"):
                error.expected += 1
            raise


class CountsFromZero(FileStoreManager):
    """Answers a count that is one too small."""

    def store_segment(self, message: Any) -> Any:
        answer = super().store_segment(message)
        return FileStoreSegmentResult(
            answer.file_id, max(0, answer.segments_received - 1), answer.file_result
        )


class IgnoresCancels(FileStoreManager):
    """Answers a cancel, and goes on as if it had not come."""

    def store_segment(self, message: Any) -> Any:
        fields = message.other_fields
        if fields.get("result") != "cancel":
            return super().store_segment(message)
        known = self.status(fields["file_id"])
        count = known.segments_received if known and known.state == "receiving" else 0
        return FileStoreSegmentResult(fields["file_id"], count, "cancel")


class AssignsOneIdToAll(FileStoreManager):
    """Has one id for whoever brings none."""

    def store_segment(self, message: Any) -> Any:
        return super().store_segment(
            Message(message.payload, {"file_id": "everybody", **message.other_fields})
        )


class LosesEmptySegments(FileStoreManager):
    """Takes a segment without bytes for no segment."""

    def store_segment(self, message: Any) -> Any:
        fields = message.other_fields
        known = self.status(fields["file_id"]) if "file_id" in fields else None
        if known is None or message.payload or "result" in fields:
            return super().store_segment(message)
        return FileStoreSegmentResult(fields["file_id"], known.segments_received)


class AppendsRepeats(FileStoreManager):
    """Takes a segment that comes again for the next one."""

    def store_segment(self, message: Any) -> Any:
        fields = dict(message.other_fields)
        known = self.status(fields["file_id"]) if "file_id" in fields else None
        if known and fields.get("segment_number") == str(known.segments_received):
            fields["segment_number"] = str(known.segments_received + 1)
        return super().store_segment(Message(message.payload, fields))


class StartsAfresh(FileStoreManager):
    """Drops what is unfinished when it opens."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for known in self.transfers():
            self.cancel(known.file_id)


class RemembersNoCompletion(FileStoreManager):
    """Forgets a transfer as soon as its file is stored."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, keep_completed=0)

    def store_segment(self, message: Any) -> Any:
        self.expire()
        return super().store_segment(message)


class StoresRepeatsAgain(FileStoreManager):
    """Stores a one-segment file again when its message comes again, over newer ones, but not in
    the middle of another transfer with its id."""

    def store_segment(self, message: Any) -> Any:
        fields = message.other_fields
        unfinished = {known.file_id for known in self.transfers()}
        alone = fields.get("segment_number") == "1" and fields.get("file_id") not in unfinished
        if fields.get("result") == "store" and alone:
            answer = super().store_segment(message)
            Path(self.storage_dir, fields["name"]).write_bytes(message.payload)
            return answer
        return super().store_segment(message)


class KnowsItsOwnOnly(FileStoreManager):
    """Takes the segments of transfers that it began itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._mine = {known.file_id for known in self.transfers()}

    def store_segment(self, message: Any) -> Any:
        number, file_id = (message.other_fields.get(one) for one in ("segment_number", "file_id"))
        if number not in (None, "1") and file_id not in self._mine:
            raise ValueError("not mine")
        answer = super().store_segment(message)
        self._mine.add(answer.file_id)
        return answer


class RaisesKeyError(FileStoreManager):
    """Does not expect a message without a number."""

    def store_segment(self, message: Any) -> Any:
        if message.other_fields.get("result") != "cancel":
            message.other_fields["segment_number"]
        return super().store_segment(message)


class DropsWhatItRefuses(FileStoreManager):
    """Ends a transfer when its file cannot have that name."""

    def store_segment(self, message: Any) -> Any:
        try:
            return super().store_segment(message)
        except RequestError as error:
            if hasattr(error, "reason") and error.file_id:
                self.cancel(error.file_id)
            raise


class LeavesFolders(FileStoreManager):
    """Makes a file's folders before it knows that the file can be stored."""

    def store_segment(self, message: Any) -> Any:
        try:
            return super().store_segment(message)
        except RequestError:
            Path(self.storage_dir, "left", "over").mkdir(parents=True, exist_ok=True)
            raise


class GivesUpOnErrors(FileStoreManager):
    """Cancels a transfer whose disk fails."""

    def store_segment(self, message: Any) -> Any:
        try:
            return super().store_segment(message)
        except OSError:
            with suppress(OSError):  # where the disk fails for ever, the transfer stays
                self.cancel(message.other_fields["file_id"])
            raise


class NeedsSpaceToCancel(FileStoreManager):
    """Writes a file when a transfer is cancelled."""

    def __init__(self, storage_dir: Path, *, disk: FaultyDisk, **options: Any) -> None:
        super().__init__(storage_dir, disk=disk, **options)
        self._disk = disk
        self._folder = disk.open_folder(self.working_dir)

    def store_segment(self, message: Any) -> Any:
        if message.other_fields.get("result") == "cancel":
            self._disk.close(self._disk.open_or_create("log", 0o600, dir_fd=self._folder))
            fd = self._disk.open("log", dir_fd=self._folder)
            self._disk.pwrite(fd, b"cancelled", 0)
            self._disk.close(fd)
        return super().store_segment(message)


class RemovesBeforeItReplaces(FileStoreManager):
    """Takes the old file away first, and then puts the new one in its place."""

    def __init__(self, storage_dir: Path, *, disk: Any, **options: Any) -> None:
        rename = disk.rename

        def replace(source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            with suppress(FileNotFoundError):
                disk.unlink(target, dir_fd=target_dir)
            rename(source, target, source_dir=source_dir, target_dir=target_dir)

        disk.rename = replace
        super().__init__(storage_dir, disk=disk, **options)


class TellsStoredOnly(FileStoreManager):
    """Says nothing of what was cancelled."""

    def events(self, *args: Any, **options: Any) -> Any:
        return [one for one in super().events(*args, **options) if one.kind == "stored"]


class ForgetsWhatWasReplaced(FileStoreManager):
    """Says of a file what its name had first."""

    def catalogue(self, *args: Any, **options: Any) -> Any:
        first = self.__dict__.setdefault("first", {})
        return [first.setdefault(one.name, one) for one in super().catalogue(*args, **options)]


BASIC = Claims()
DEFECTS: list[tuple[type[FileStoreManager], Claims]] = [
    (TakesAnyNumber, BASIC),
    (LeavesAFileBehind, BASIC),
    (TrustsTheSender, BASIC),
    (KeepsTheTransferThatDoesNotMatch, BASIC),
    (TellsTheWrongNextNumber, BASIC),
    (CountsFromZero, BASIC),
    (IgnoresCancels, BASIC),
    (AssignsOneIdToAll, BASIC),
    (LosesEmptySegments, BASIC),
    (AppendsRepeats, BASIC),
    (StartsAfresh, Claims(resumes=True)),
    (RemembersNoCompletion, Claims(exactly_once=True)),
    (StoresRepeatsAgain, Claims(exactly_once=True)),
    (KnowsItsOwnOnly, Claims(several_workers=True)),
    (RaisesKeyError, Claims(refuses_cleanly=True)),
    (DropsWhatItRefuses, Claims(refuses_cleanly=True)),
    (LeavesFolders, BASIC),
    (GivesUpOnErrors, Claims(survives_errors=True)),
    (NeedsSpaceToCancel, Claims(survives_errors=True)),
    (RemovesBeforeItReplaces, Claims(resumes=True, survives_crashes=True)),
    (TellsStoredOnly, Claims(resumes=True, tells_events=True)),
    (ForgetsWhatWasReplaced, Claims(resumes=True, catalogues=True)),
    (FileStoreManager, Claims(refuses_taken=True)),
    (FileStoreManager, Claims(max_file_size=900)),
    (FileStoreManager, Claims(max_transfers=1)),
    (FileStoreManager, Claims(max_unfinished_bytes=100)),
]


@pytest.mark.parametrize(("store", "claims"), DEFECTS, ids=lambda one: getattr(one, "__name__", ""))
def test_the_contract_finds_a_seeded_defect(store: type[FileStoreManager], claims: Claims) -> None:
    def open_store(setup: Setup) -> FileStoreManager:
        return store(setup.storage_dir, durability="none", disk=setup.disk)

    with pytest.raises(ContractBrokenError):
        hold(StoreContract.of(open_store, claims), 400)


@pytest.mark.parametrize(
    "store",
    [one for one, claims in DEFECTS if claims != BASIC and one is not FileStoreManager],
    ids=lambda one: one.__name__,
)
def test_what_is_not_claimed_is_not_asked(store: type[FileStoreManager]) -> None:
    def open_store(setup: Setup) -> FileStoreManager:
        return store(setup.storage_dir, durability="none", disk=setup.disk)

    hold(StoreContract.of(open_store, BASIC), 5)


def test_a_store_that_no_fault_can_reach_cannot_claim_to_survive_them() -> None:
    def open_store(setup: Setup) -> FileStoreManager:
        return FileStoreManager(setup.storage_dir, durability="none")

    with pytest.raises(TypeError, match=r"disk=setup\.disk"):
        hold(StoreContract.of(open_store, Claims(survives_errors=True)), 1)


def test_a_store_that_does_not_resume_cannot_claim_to_survive_crashes() -> None:
    with pytest.raises(ValueError, match="resumes"):
        Claims(survives_crashes=True)


def test_a_contract_without_a_store_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="StoreContract must say how"):
        hold(StoreContract, 1)


# --- upstream ------------------------------------------------------------------------------------


def load_upstream() -> Any:
    """Upstream's store module without its package, which imports what Python 3.12 has no more."""
    found = importlib.util.find_spec("dxlfiletransferclient")
    assert found is not None
    alone = types.ModuleType("upstream_alone")
    alone.__path__ = found.submodule_search_locations or []
    sys.modules[alone.__name__] = alone
    return importlib.import_module(f"{alone.__name__}.store")


upstream = load_upstream()


class OsOnDisk(types.ModuleType):
    """The module ``os`` as upstream's store uses it, its changes made by a disk that can fail."""

    def __init__(self, disk: FaultyDisk) -> None:
        super().__init__("os")
        self._disk, self._root = disk, disk.open_folder("/")

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def rename(self, source: str, target: str) -> None:
        self._disk.rename(source, target, source_dir=self._root, target_dir=self._root)

    def remove(self, path: str) -> None:
        self._disk.unlink(path, dir_fd=self._root)

    def makedirs(self, path: str) -> None:
        if not os.path.exists(os.path.dirname(path)):
            self.makedirs(os.path.dirname(path))
        self._disk.make_folder(path, 0o777)


class FileOnDisk:
    """A file as upstream's store opens and writes it, likewise."""

    def __init__(self, disk: FaultyDisk, path: str) -> None:
        self._disk = disk
        self._fd = disk.open_or_create(path, 0o666, dir_fd=0)

    def write(self, data: bytes) -> None:
        self._disk.pwrite(self._fd, data, os.fstat(self._fd).st_size)

    def __enter__(self) -> FileOnDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close(self._fd)


def open_upstream(setup: Setup) -> Store:
    """Open upstream's store, its module made to work on a disk that can fail."""
    upstream.os = OsOnDisk(setup.disk)
    upstream.open = lambda path, _mode: FileOnDisk(setup.disk, path)
    store: Store = upstream.FileStoreManager(str(setup.storage_dir))
    return store


@pytest.fixture
def upstream_on_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Setup], Store]:
    """Opens upstream's store; its module is itself again afterwards."""
    monkeypatch.setattr(upstream, "os", os)
    monkeypatch.setattr(upstream, "open", open, raising=False)
    return open_upstream


def test_upstream_stores_whole_files_whose_segments_come_in_order(
    upstream_on_disk: Callable[[Setup], Store],
) -> None:
    hold(StoreContract.of(upstream_on_disk, Claims()), 30)


def does_not(reason: str, **claim: bool) -> Any:
    """A claim that upstream's store could not make."""
    marks = pytest.mark.xfail(reason=reason, raises=ContractBrokenError, strict=True)
    return pytest.param(Claims(**claim), marks=marks, id="-".join(claim))


@pytest.mark.parametrize(
    "claims",
    [
        does_not("upstream drops every unfinished transfer when it opens", resumes=True),
        does_not("upstream refuses a message whose answer was lost", exactly_once=True),
        does_not(
            "a second upstream store destroys the first one's transfers", several_workers=True
        ),
        does_not(
            "upstream raises other errors than ValueError, and then drops the transfer or keeps"
            " what it should have refused",
            refuses_cleanly=True,
        ),
        does_not(
            "upstream drops a transfer, or the file it was to replace, when its disk fails",
            survives_errors=True,
        ),
        does_not(
            "upstream removes the old file before it puts the new one in its place",
            resumes=True,
            survives_crashes=True,
        ),
    ],
)
def test_upstream_does_not_do_this(
    upstream_on_disk: Callable[[Setup], Store], claims: Claims
) -> None:
    hold(StoreContract.of(upstream_on_disk, claims), 200)


# --- faults --------------------------------------------------------------------------------------


def test_the_nth_flush_fails_and_the_segment_can_be_sent_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    transfer = Transfer("file", (b"1", b"2", b"3"), "id")
    with FileStoreManager(tmp_path, disk=disk) as store:
        store.store_segment(transfer.message(1))
        fault = disk.faults.fail("flush", errno.EIO, path="staging")
        with pytest.raises(OSError, match="Input/output error") as failed:
            store.store_segment(transfer.message(2))
        assert failed.value.errno == errno.EIO
        assert fault.done
        assert transfer.send(store, first=2).file_result == "store"


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_the_rename_leaves_the_old_file_or_the_new(after: bool) -> None:
    with crashing_store() as crashing:
        Transfer("file", (b"old",)).send(crashing.store)
        transfer = Transfer("file", (b"ne", b"w"), "id")
        crashing.faults.crash("rename", path=f"{crashing.storage_dir}/file", after=after)
        with pytest.raises(SimulatedCrash):
            transfer.send(crashing.store)
        assert crashing.dead
        content = (crashing.storage_dir / "file").read_bytes()
        assert content == (b"new" if after else b"old")
        with pytest.raises(SimulatedCrash):
            crashing.store.store_segment(transfer.message(1))
        store = crashing.restart()
        assert not crashing.dead
        assert transfer.send(store, first=2).file_result == "store"
        assert (crashing.storage_dir / "file").read_bytes() == b"new"


def test_a_successor_can_die_while_it_opens() -> None:
    with crashing_store() as crashing:
        Transfer("file", (b"1", b"2"), "id").send(crashing.store)
        with pytest.raises(SimulatedCrash):
            crashing.restart(FaultPlan(Fault("connect")))
        assert crashing.restart().status("id") is not None


def test_a_dead_process_holds_nobody_up_and_changes_nothing_more() -> None:
    with crashing_store() as crashing:
        dead = crashing.store
        crashing.faults.crash("commit")
        with pytest.raises(SimulatedCrash):
            dead.store_segment(segment(1, b"1", "id"))
        crashing.restart().store_segment(segment(1, b"1", "id"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            dead.store_segment(segment(2, b"2", "id"))
        [known] = crashing.store.transfers()
        assert known.segments_received == 1


def test_crashes_leak_no_descriptor() -> None:
    before = descriptors()
    with crashing_store() as crashing:
        for nth in range(1, 20):
            crashing.faults.crash("*", nth=nth)
            with pytest.raises(SimulatedCrash):
                crashing.store.store_segment(segment(1, b"1", f"id {nth}"))
            crashing.restart()
    assert descriptors() == before


def test_no_call_of_the_disk_escapes_the_plan() -> None:
    calls = {name for name, _ in inspect.getmembers(Disk, callable) if name[0] != "_"}
    harmless = {
        "boot_id",
        "clock_ahead",
        "file_system",
        "umask",
        "pause",
        "sqlite_connection",
        "inode_behind",
    }  # not of the files
    for name in calls - harmless:
        assert getattr(FaultyDisk, name) is not getattr(Disk, name), name


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("call", {"call": "fdatasync"}),
        ("call", {"call": "flsuh"}),
        ("call", {"call": "_call"}),
        ("nth", {"call": "flush", "nth": 0}),
        ("nth", {"call": "flush", "nth": -1}),
        ("nth", {"call": "flush", "nth": 1.0}),
        ("nth", {"call": "flush", "nth": True}),
        ("nth", {"call": "flush", "nth": "2"}),
        ("error", {"call": "flush", "error": "EIO"}),
        ("error", {"call": "flush", "error": OSError(errno.EIO, "")}),
        ("short", {"call": "flush", "short": True}),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(option: str, given: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        Fault(**given)
    assert caught.value.option == option
    assert caught.value.received == given.get(option) or option == "short"


def test_a_wrong_name_of_a_call_is_answered_with_the_right_ones() -> None:
    for wrong in ("fdatasync", "fsync"):
        with pytest.raises(ValueError, match=f"no call '{wrong}'.*fdatasync is 'flush'.*pwrite"):
            FaultPlan().fail(wrong)
    with pytest.raises(ValueError, match=r"no call 'mkdir'.*make_folder"):
        FaultPlan().crash("mkdir")


def test_a_short_write_is_carried_on() -> None:
    with crashing_store() as crashing:
        shortened = crashing.faults.shorten(path="staging", forever=True)
        Transfer("file", (b"some", b" bytes"), "id").send(crashing.store)
        assert shortened.seen > 4
        assert (crashing.storage_dir / "file").read_bytes() == b"some bytes"


def test_a_full_disk_keeps_what_it_has_and_takes_no_more() -> None:
    with crashing_store() as crashing:
        Transfer("file", (b"old",)).send(crashing.store)
        transfer = Transfer("file", (b"ne", b"w"), "id")
        crashing.store.store_segment(transfer.message(1))
        crashing.disk.full = True
        for message in (transfer.message(2), segment(1, b"1", "other")):
            with pytest.raises(OSError, match="No space left") as failed:
                crashing.store.store_segment(message)
            assert failed.value.errno == errno.ENOSPC
        assert (crashing.storage_dir / "file").read_bytes() == b"old"
        assert [one.file_id for one in crashing.store.transfers()] == ["id"]
        crashing.disk.full = False
        transfer.send(crashing.store, first=2)
        assert (crashing.storage_dir / "file").read_bytes() == b"new"


def test_a_fault_of_the_journal_comes_out_as_the_store_translates_it(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with FileStoreManager(tmp_path, disk=disk) as store:
        disk.faults.fail("commit", errno.EROFS)
        with pytest.raises(OSError, match="readonly") as failed:
            store.store_segment(segment(1, b"1", "id"))
        assert failed.value.errno == errno.EROFS
        store.store_segment(segment(1, b"1", "id"))


def test_the_plan_tells_what_was_called(tmp_path: Path) -> None:
    disk = FaultyDisk(FaultPlan(keep_history=True))
    with FileStoreManager(tmp_path, disk=disk) as store:
        Transfer("sub/file", (b"1",)).send(store)
    assert disk.faults.history is not None
    assert len(disk.faults.history) == disk.faults.calls
    renames = [path for call, path in disk.faults.history if call == "rename"]
    assert any(path.endswith(f" {tmp_path}/sub/file") for path in renames)


def test_managers_that_share_a_disk_die_together(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with ExitStack() as opened:
        opened.callback(disk.bury)
        first, second = (FileStoreManager(tmp_path, disk=disk) for _ in range(2))
        disk.faults.crash("pwrite", path="staging")
        with pytest.raises(SimulatedCrash):
            first.store_segment(segment(1, b"1", "id"))
        with pytest.raises(SimulatedCrash):
            second.store_segment(cancel("other"))


def test_any_store_can_be_made_to_crash(tmp_path: Path) -> None:
    opened: list[Setup] = []
    with CrashingStore(tmp_path, opened.append) as crashing:
        crashing.restart()
    assert [setup.storage_dir for setup in opened] == [tmp_path, tmp_path]
    assert opened[0].disk is not opened[1].disk


# --- fixtures ------------------------------------------------------------------------------------


def test_fresh_stores_leave_nothing_behind() -> None:
    with fresh_store(durability="file", keep_completed=5) as store:
        Transfer("file", (b"1",)).send(store)
        folder = Path(store.storage_dir)
        assert (folder / "file").exists()
    assert not folder.exists()


FIXTURES = """
import errno
import pytest
from hypothesis import given, settings, strategies as st
from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.testing import SimulatedCrash, segment

@settings(max_examples=20, deadline=None)
@given(payload=st.binary())
def test_fresh(txstore_fresh, payload):
    with txstore_fresh() as store:
        assert store.store_segment(segment(1, payload)).segments_received == 1

def test_store(txstore_store):
    assert txstore_store.transfers() == []

def test_disk(txstore_disk, tmp_path):
    with FileStoreManager(tmp_path, disk=txstore_disk) as store:
        txstore_disk.faults.fail("flush", errno.EIO, nth=2)
        with pytest.raises(OSError):
            for number in (1, 2):
                store.store_segment(segment(number, b"1", "id"))

def test_crashing(txstore_crashing):
    txstore_crashing.faults.crash("commit")
    with pytest.raises(SimulatedCrash):
        txstore_crashing.store.store_segment(segment(1, b"1", "id"))
    assert txstore_crashing.restart().transfers() == []
"""


def test_the_fixtures_work_in_a_users_tests(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(FIXTURES, encoding="utf-8")
    printed = run_pytest(tmp_path)
    assert "4 passed" in printed, printed


def test_the_entry_point_names_the_plugin() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\ntxstore = "txstore.testing.plugin"\n' in text


def test_the_plugin_loads_hypothesis_only_when_it_is_used() -> None:
    code = "import sys, txstore.testing.plugin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "txstore.testing.plugin" in loaded
    assert set(loaded).isdisjoint({"hypothesis", "txstore.testing.contract", "dxlclient"})


def test_every_public_name_is_there_and_no_other() -> None:
    import txstore.testing

    assert all(hasattr(txstore.testing, name) for name in txstore.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = txstore.testing.Nothing
