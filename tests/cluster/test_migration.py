"""A store is moved from two folders to servers and back: nothing acknowledged is lost, whatever
fails or dies on the way, and at no moment do two stores take segments."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cluster_servers import BUCKET, Cluster, emptied, own_cluster, s3_client
from support import FULL, claim, message, outcome, published, send, sha256, transfer_messages

from txstore import FileStoreManager
from txstore.errors import MigrationError, SequenceError, SourceDamagedError, StoreMovedError
from txstore.migration import Amount, Migration, Place, Watcher
from txstore.testing import Fault, FaultPlan, FaultyDisk, FaultyServers, SimulatedCrash

SEGMENT = 1_000_000
LARGE = os.urandom(1 << 20) * 12 + b"the end"  # more than one part of 5 MiB


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with own_cluster() as cluster:
        yield cluster


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "here"), None)


@pytest.fixture
def there(cluster: Cluster) -> Place:
    return Place(f"{cluster.storage_dir}&part_size=5MiB", cluster.working_dir)


@pytest.fixture
def back(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "back"), str(tmp_path / "back-work"))


def opened(place: Place, **options: object) -> FileStoreManager:
    return FileStoreManager(place.storage_dir, place.working_dir, **options)  # type: ignore[arg-type]


def fill(store: FileStoreManager) -> None:
    """Some of everything."""
    for name, data in FILES.items():
        send(store, transfer_messages(data, SEGMENT, name=name, file_id=f"of-{len(data)}"))
    store.store_segment(
        message(
            b"whole",
            segment_number="1",
            file_id="whole",
            **claim(b"whole", "whole.bin"),
        )
    )
    for file_id, segments in OPEN.items():
        for number, data in enumerate(segments, 1):
            store.store_segment(message(data, segment_number=str(number), file_id=file_id))
    store.store_segment(message(b"x", segment_number="1", file_id="gone"))
    store.cancel("gone")
    for event in store.events(consumer="index"):
        event.done()
        break


FILES = {
    "empty.bin": b"",
    "small.bin": b"small",
    "a/b/deep ü.bin": b"deep" * 1000,
    "large.bin": LARGE,
}
OPEN = {
    "one": [b"first"],
    "empty": [b""],
    "ends-empty": [b"first", b"", b""],
    "several": [b"1" * 1000, b"22", b"333"],
    "large": [LARGE[:5_000_000], LARGE[5_000_000:9_000_000], LARGE[9_000_000:]],
}


def check(store: FileStoreManager) -> None:
    """All that ``fill`` left is there, and can be gone on with."""
    files = FILES | {"whole.bin": b"whole"}
    assert published(store) == files
    known = {one.name: one.sha256 for one in store.catalogue()}
    assert known == {name: sha256(data) for name, data in files.items()}
    assert {
        one.file_id: (one.segments_received, one.bytes_received) for one in store.transfers()
    } == {file_id: (len(segments), sum(map(len, segments))) for file_id, segments in OPEN.items()}
    events = list(store.events())
    assert [(one.kind, one.file_id) for one in events[-2:]] == [
        ("stored", "whole"),
        ("cancelled", "gone"),
    ]
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    [consumer] = store.consumers()
    assert (consumer.name, consumer.cursor, consumer.behind) == ("index", 1, len(events) - 1)
    # Whose answer was lost sends again: a last message, in several segments or one, a segment.
    last = transfer_messages(LARGE, SEGMENT, name="large.bin", file_id=f"of-{len(LARGE)}")[-1]
    assert store.store_segment(last).file_result == "store"
    again = message(
        b"whole",
        segment_number="1",
        file_id="whole",
        **claim(b"whole", "whole.bin"),
    )
    assert store.store_segment(again).file_result == "store"
    assert len(list(store.events())) == len(events), "a repeat was carried out again"
    for file_id, segments in OPEN.items():
        number = str(len(segments))
        again = message(segments[-1], segment_number=number, file_id=file_id)
        assert store.store_segment(again).segments_received == len(segments)
        other = message(b"other", segment_number=number, file_id=file_id)
        assert isinstance(outcome(store.store_segment, other), SequenceError | ValueError)


def finish(store: FileStoreManager) -> None:
    for file_id, segments in OPEN.items():
        data = b"".join(segments) + b"last"
        last = message(
            b"last",
            segment_number=str(len(segments) + 1),
            file_id=file_id,
            **claim(data, f"finished/{file_id}"),
        )
        assert store.store_segment(last).file_result == "store"
        assert published(store)[f"finished/{file_id}"] == data


def small(store: FileStoreManager) -> None:
    """A little of everything, for tests that move it many times."""
    send(store, transfer_messages(b"stored", 3, name="a/stored", file_id="stored"))
    store.store_segment(message(b"two", segment_number="1", file_id="open"))
    store.store_segment(message(b"", segment_number="2", file_id="open"))
    for event in store.events(consumer="index"):
        event.done()


def check_small(store: FileStoreManager) -> None:
    assert published(store) == {"a/stored": b"stored"}
    last = transfer_messages(b"stored", 3, name="a/stored", file_id="stored")[-1]
    assert store.store_segment(last).file_result == "store"
    assert [(one.sequence, one.file_id) for one in store.events()] == [(1, "stored")]
    assert [(one.name, one.cursor) for one in store.consumers()] == [("index", 1)]
    assert [(one.file_id, one.segments_received) for one in store.transfers()] == [("open", 2)]
    end = message(b"end", segment_number="3", file_id="open", **claim(b"twoend", "open.bin"))
    assert store.store_segment(end).file_result == "store"
    assert published(store) == {"a/stored": b"stored", "open.bin": b"twoend"}


@pytest.mark.promise(1)
@pytest.mark.promise(4)
def test_all_is_moved_there_and_back(here: Place, there: Place, back: Place) -> None:
    with opened(here) as store:
        fill(store)
        ages = {one.file_id: one.created_at for one in store.transfers()}
    report = Migration(here, there).run()
    assert report.there == report.copied
    with opened(there) as store:
        assert {one.file_id: one.created_at for one in store.transfers()} == ages
        check(store)
    Migration(there, back).run()
    with opened(back) as store:
        check(store)
        findings = FileStoreManager.inspect(back.storage_dir, back.working_dir).check(deep=True)
        assert list(findings) == []
        finish(store)


def test_what_is_there_is_not_copied_again(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    Migration(here, there).run()
    again = Migration(here, there).run()
    assert again.was_finished
    assert again.copied.files == again.copied.transfers == 0


# --- two stores never take segments --------------------------------------------------------------


def test_what_is_known_of_a_file_outlasts_a_move_without_its_completion(
    there: Place, back: Place
) -> None:
    with opened(there) as store:
        small(store)
    with opened(there, keep_completed=0) as store:
        store.expire()
    Migration(there, back).run()
    with opened(back) as store:
        [entry] = store.catalogue()
        assert (entry.name, entry.sha256) == ("a/stored", sha256(b"stored"))
        assert list(FileStoreManager.inspect(back.storage_dir, back.working_dir).check()) == []


@pytest.mark.promise(7)
def test_workers_that_are_open_are_refused_and_told_where_to_go(here: Place, there: Place) -> None:
    with opened(here) as worker:
        small(worker)
        Migration(here, there).run()
        for send_it in (
            lambda: worker.store_segment(message(b"x", segment_number="3", file_id="open")),
            lambda: worker.store_segment(message(b"two", segment_number="1", file_id="new")),
            lambda: worker.cancel("open"),
            lambda: opened(here),
        ):
            told = outcome(send_it)
            assert isinstance(told, StoreMovedError), told
            assert told.finished
            assert told.storage_dir == there.storage_dir
            assert pickle.loads(pickle.dumps(told)).storage_dir == told.storage_dir
            assert "tests-password" not in str(told)
    with opened(there) as store:
        check_small(store)


@pytest.mark.promise(7)
def test_workers_over_servers_are_refused_likewise(there: Place, back: Place) -> None:
    with opened(there) as worker:
        small(worker)
        Migration(there, back).run()
        for send_it in (
            lambda: worker.store_segment(message(b"x", segment_number="3", file_id="open")),
            lambda: worker.store_segment(
                message(b"x", segment_number="1", file_id="new", **claim(b"x", "new.bin"))
            ),
            lambda: worker.cancel("open"),
            lambda: opened(there),
        ):
            told = outcome(send_it)
            assert isinstance(told, StoreMovedError), told
            assert told.storage_dir == back.storage_dir
    with opened(back) as store:
        check_small(store)


class _Stopped(Watcher):
    """Ends a run when all is decided, and nothing copied yet."""

    def begin(self, amount: Amount) -> None:  # noqa: ARG002
        raise KeyboardInterrupt


def test_neither_store_takes_anything_until_all_is_there(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    with pytest.raises(KeyboardInterrupt):
        Migration(here, there).run(_Stopped())
    assert isinstance(outcome(opened, here), StoreMovedError)
    told = outcome(opened, there)
    assert isinstance(told, StoreMovedError)
    assert not told.finished
    Migration(here, there).run()
    with opened(there) as store:
        check_small(store)


def test_a_move_that_is_given_up_leaves_the_store_where_it_was(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    with pytest.raises(KeyboardInterrupt):
        Migration(here, there).run(_Stopped())
    Migration(here, there).undo()
    assert isinstance(outcome(opened, there), StoreMovedError)
    with opened(here) as store:
        check_small(store)
    with pytest.raises(MigrationError):
        Migration(here, there).undo()


def test_a_finished_move_cannot_be_given_up(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    Migration(here, there).run()
    with pytest.raises(MigrationError):
        Migration(here, there).undo()
    assert isinstance(outcome(opened, here), StoreMovedError)


class Sender(threading.Thread):
    """Sends one file after another, whatever happens, by what any sender does: again after an
    error, and on from where the store is.

    :ivar acked: how many segments of each were acknowledged
    """

    def __init__(self, places: list[Place]) -> None:
        super().__init__()
        self._places = places
        self.acked: dict[str, int] = {}
        self.stored: dict[str, bytes] = {}
        self.over = threading.Event()
        self.began = threading.Event()
        self.went_on = threading.Event()
        self.wrong: list[object] = []

    def run(self) -> None:
        store = opened(self._places[0], durability="file")
        try:
            number = 0
            while not self.over.is_set():
                number += 1
                store = self._send(store, f"file-{number}")
                if number > 3:
                    self.began.set()
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.wrong.append(error)
            self.began.set()
            self.went_on.set()
        finally:
            store.close()

    def _send(self, store: FileStoreManager, name: str) -> FileStoreManager:
        data = name.encode() * 7
        todo = transfer_messages(data, 9, name=name, file_id=name)
        at = 0
        while at < len(todo):
            try:
                answer = store.store_segment(todo[at])
                at += 1
                self.acked[name] = answer.segments_received
                if len(self._places) == 1:
                    self.went_on.set()
            except StoreMovedError:
                store.close()
                if len(self._places) > 1:
                    del self._places[0]
                while isinstance(found := outcome(opened, self._places[0]), StoreMovedError):
                    pass
                assert isinstance(found, FileStoreManager), found
                store = found
                status = store.status(name)
                had = status.segments_received if status is not None else 0
                assert had >= self.acked.get(name, 0), f"{name}: {had} of {self.acked}"
        self.stored[name] = data
        return store


@pytest.mark.promise(1)
@pytest.mark.parametrize("way", ["to servers", "from servers"])
def test_a_sender_that_is_at_it_loses_nothing(
    way: str, here: Place, there: Place, back: Place
) -> None:
    source, target = (here, there) if way == "to servers" else (there, back)
    senders = [Sender([source, target])]
    for sender in senders:
        sender.start()
    try:
        for sender in senders:
            assert sender.began.wait(60)
        Migration(source, target).run()
        for sender in senders:
            assert sender.went_on.wait(60)
    finally:
        for sender in senders:
            sender.over.set()
            sender.join()
    [sender] = senders
    assert sender.wrong == []
    with opened(target) as store:
        assert published(store) == sender.stored
        assert sorted(one.file_id for one in store.events()) == sorted(sender.stored)


# --- killed anywhere -----------------------------------------------------------------------------


class Deadly(FaultPlan):
    """One plan for disk and servers, which die together."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.disk, self.servers = FaultyDisk(self), FaultyServers(self)

    def struck(self, call: str, path: str) -> list[Fault]:
        struck = super().struck(call, path)
        if struck:
            self.disk.dead = self.servers.dead = True
        return struck

    def bury(self) -> None:
        self.disk.bury()
        self.servers.bury()


def move(source: Place, target: Place, plan: Deadly) -> None:
    Migration(source, target, disk=plan.disk, servers=plan.servers).run()


def killed_at(source: Place, target: Place, number: int, *, after: bool) -> bool:
    """Move a small store, killed once; whether it came so far."""
    with opened(source) as store:
        small(store)
    plan = Deadly(Fault("change", number, after=after))
    struck = False
    try:
        move(source, target, plan)
    except SimulatedCrash:
        struck = True
        plan.bury()  # before anything of it is collected
    # Never both, whenever it was.
    open_ones = [one for one in (source, target) if takes(one)]
    assert len(open_ones) <= 1, open_ones
    Migration(source, target).run()
    assert not takes(source)
    with opened(target) as store:
        check_small(store)
    return struck


def takes(place: Place) -> bool:
    """Whether a store is there that takes segments."""
    if not place.is_cluster and not Path(place.storage_dir).exists():
        return False
    try:
        FileStoreManager.inspect(place.storage_dir, place.working_dir).totals()
    except (StoreMovedError, FileNotFoundError):
        return False
    with opened(place) as store:
        return bool(store.count_transfers())


#: So many calls that change something are made; a sample of them in every run.
STEP = 1 if FULL else 13


@pytest.mark.promise(1)
@pytest.mark.parametrize("way", ["to servers", "from servers"])
def test_killed_at_any_call_it_goes_on(way: str, tmp_path: Path) -> None:
    number, points = 1, 0
    while True:
        folder = tmp_path / f"{number}"
        with own_cluster() as cluster:
            servers = Place(cluster.storage_dir, cluster.working_dir)
            folders = Place(str(folder / "storage"), str(folder / "work"))
            pair = (folders, servers) if way == "to servers" else (servers, folders)
            if not killed_at(*pair, number, after=bool(points % 2)):
                break
        number, points = number + STEP, points + 1
    assert points > 2


def test_what_fails_is_told_and_the_next_run_goes_on(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    plan = FaultPlan()
    plan.fail("put_object", errno.EACCES)
    servers = FaultyServers(plan)
    told = outcome(Migration(here, there, servers=servers).run)
    assert isinstance(told, OSError), told
    Migration(here, there).run()
    with opened(there) as store:
        check_small(store)


# --- what cannot be moved ------------------------------------------------------------------------


def test_names_that_the_target_cannot_carry_are_told_before_anything_begins(
    here: Place, there: Place, cluster: Cluster
) -> None:
    with opened(here) as store:
        small(store)
    storage = Path(here.storage_dir)
    (storage / os.fsdecode(b"no-\xff-text")).write_bytes(b"x")
    (storage / "link").symlink_to("a/stored")
    (storage / "l").mkdir()
    deep = storage
    for part in ["p" * 200] * 5 + ["q" * 100]:
        deep = deep / part
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"x")
    for step in (Migration(here, there).plan, Migration(here, there).run):
        with pytest.raises(MigrationError) as refused:
            step()
        assert {name for name, _ in refused.value.names} == {
            os.fsdecode(b"no-\xff-text"),
            "link",
            str(deep.relative_to(storage)),
        }
    assert cluster.keys() == []
    with opened(here) as store:
        assert store.count_transfers() == 1


def test_keys_that_no_folder_can_carry_are_told(
    there: Place, back: Place, cluster: Cluster
) -> None:
    with opened(there) as store:
        small(store)
    client = s3_client(cluster.addresses.endpoint)
    for key in ("x", "x/y", "n" * 300):
        with suppress(Exception):  # this server keeps some of them itself
            client.put_object(Bucket=BUCKET, Key=f"{cluster.place}/{key}", Body=b"")
    strange = {*cluster.keys()} - {"a/stored", "x", ".txstore/store"}
    assert strange
    with pytest.raises(MigrationError) as refused:
        Migration(there, back).run()
    assert {name for name, _ in refused.value.names} == strange
    assert not Path(back.storage_dir).exists()


def test_a_store_is_moved_to_an_empty_place_only(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    with opened(there) as store:
        store.store_segment(message(b"x", segment_number="1", file_id="theirs"))
    with pytest.raises(MigrationError, match="in use"):
        Migration(here, there).run()
    for place, count in ((here, "open"), (there, "theirs")):
        with opened(place) as store:
            assert [one.file_id for one in store.transfers()] == [count]


def test_what_was_moved_is_not_moved_elsewhere(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
    Migration(here, there).run()
    with own_cluster() as other:
        elsewhere = Place(other.storage_dir, other.working_dir)
        told = outcome(Migration(here, elsewhere).run)
        assert isinstance(told, StoreMovedError), told
    with opened(there) as store:
        check_small(store)


def test_a_target_that_was_removed_is_filled_anew(here: Place, back: Place) -> None:
    with opened(here) as store:
        small(store)
    with own_cluster() as cluster:
        there = Place(cluster.storage_dir, cluster.working_dir)
        Migration(here, there).run()
        emptied(cluster)
        keys = cluster.keys()
        for key in keys:
            cluster.remove(key)
        report = Migration(here, there).run()
        assert (report.copied.files, report.copied.transfers) == (1, 1)
        Migration(there, back).run()
    with opened(back) as store:
        check_small(store)


@pytest.mark.promise(4)
@pytest.mark.parametrize("after", [False, True])
def test_what_a_dead_worker_was_about_to_publish_is_settled_first(
    after: bool, there: Place, back: Place
) -> None:
    servers = FaultyServers()
    store = opened(there, disk=servers)
    small(store)
    end = message(b"end", segment_number="3", file_id="open", **claim(b"twoend", "open.bin"))
    servers.faults.crash("complete_multipart_upload", after=after)
    with pytest.raises(SimulatedCrash):
        store.store_segment(end)
    servers.bury()
    Migration(there, back).run()
    with opened(back) as store:
        # Readers of the bucket may have seen it: then it is stored, and not once more.
        assert store.count_transfers() == int(not after)
        assert store.store_segment(end).file_result == "store"
        assert published(store) == {"a/stored": b"stored", "open.bin": b"twoend"}
        assert [one.file_id for one in store.events()] == ["stored", "open"]


@pytest.mark.promise(2)
def test_a_stored_file_that_is_damaged_is_told_and_the_target_stays_closed(
    here: Place, there: Place
) -> None:
    with opened(here) as store:
        small(store)
    stored = Path(here.storage_dir, "a/stored")
    found = stored.stat()
    stored.write_bytes(b"rotten")
    os.utime(stored, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(SourceDamagedError):
        Migration(here, there).run()
    assert isinstance(outcome(opened, there), StoreMovedError)
    stored.write_bytes(b"stored")
    os.utime(stored, ns=(found.st_atime_ns, found.st_mtime_ns))
    Migration(here, there).run()
    with opened(there) as store:
        check_small(store)


@pytest.mark.promise(3)
def test_a_transfer_that_is_damaged_is_left_out_and_told(here: Place, there: Place) -> None:
    with opened(here) as store:
        small(store)
        store.store_segment(message(b"damaged", segment_number="1", file_id="damaged"))
    [damaged] = [
        one
        for one in Path(here.storage_dir, ".workdir", "staging").iterdir()
        if one.read_bytes().startswith(b"damaged")
    ]
    damaged.write_bytes(b"DAMAGED")
    report = Migration(here, there).run()
    assert report.damaged == ["damaged"]
    with opened(there) as store:
        check_small(store)


def test_two_folders_are_not_moved_to_two_folders(here: Place, back: Place) -> None:
    with pytest.raises(MigrationError, match="copy"):
        Migration(here, back)


def test_a_store_that_is_not_there_is_not_made(there: Place, back: Place, cluster: Cluster) -> None:
    for source in (Place(back.storage_dir, None), there):
        target = there if source != there else back
        assert isinstance(outcome(Migration(source, target).run), MigrationError)
    assert cluster.keys() == []
    assert not Path(back.storage_dir).exists()
