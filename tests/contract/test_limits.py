"""What a store takes at most: exact against any number of senders; a refusal changes nothing."""

from __future__ import annotations

import builtins
import inspect
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import (
    OpenStore,
    claim,
    everything,
    message,
    outcome,
    over_every_engine,
    over_two_folders,
)

from txstore import FileStoreManager, errors
from txstore.disk import Disk
from txstore.dxl import ServiceConfig, handlers
from txstore.errors import LimitError, OptionError, SequenceError, TxStoreError
from txstore.limits import Limits

pytestmark = over_every_engine

MOST = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStoreManager]:
    limits = Limits(max_file_size=MOST)
    with FileStoreManager(tmp_path / "storage", durability="none", limits=limits) as store:
        yield store


def plain(number: int, payload: bytes, **fields: str) -> Any:
    return message(payload, file_id="id", segment_number=str(number), **fields)


def last(number: int, payload: bytes, whole: bytes) -> Any:
    return plain(number, payload, **claim(whole))


@pytest.mark.parametrize(
    ("had", "refused", "used", "wanted"),
    [
        (b"", plain(1, b"x" * 101), 0, 101),
        (b"", plain(1, b"x", size="101"), 0, 101),
        (b"", last(1, b"x" * 101, b"x" * 101), 0, 101),
        (b"x" * 60, plain(2, b"x" * 41), 60, 101),
        (b"x" * 60, plain(2, b"x", size="102"), 60, 102),
        (b"x" * 60, last(2, b"x" * 41, b"x" * 101), 60, 101),
        (b"x" * 60, last(2, b"x" * 41, b"y"), 60, 101),
    ],
)
def test_what_goes_beyond_the_limit_is_refused_and_changes_nothing(
    store: FileStoreManager, had: bytes, refused: Any, used: int, wanted: int
) -> None:
    if had:
        store.store_segment(plain(1, had))
    before = everything(store)
    error = outcome(store.store_segment, refused)
    assert isinstance(error, LimitError), "promise 5: what is refused changes nothing"
    assert "at most 100 bytes" in str(error)
    assert (error.option, error.limit, error.used, error.wanted) == (
        *("max_file_size", MOST, used, wanted),
    )
    assert error.file_id == "id"
    assert everything(store) == before


def test_what_fits_to_the_last_byte_is_stored_and_its_repeats_are_answered(
    store: FileStoreManager,
) -> None:
    whole = b"a" * 60 + b"b" * 40
    for _ in range(2):
        store.store_segment(plain(1, whole[:60], size="100"))
    for _ in range(2):
        assert store.store_segment(last(2, whole[60:], whole)).file_result == "store"
    # Also while another transfer with the id is larger by now.
    store.store_segment(plain(1, b"x" * 99))
    assert store.store_segment(last(2, whole[60:], whole)).file_result == "store"


def test_a_stored_file_stays_whatever_the_limit_becomes(
    store: FileStoreManager, tmp_path: Path
) -> None:
    whole = b"a" * 60 + b"b" * 40
    store.store_segment(plain(1, whole[:60]))
    store.store_segment(last(2, whole[60:], whole))
    with FileStoreManager(tmp_path / "storage", limits=Limits(max_file_size=1)) as smaller:
        assert smaller.store_segment(last(2, whole[60:], whole)).file_result == "store"


def test_any_number_of_senders_together_pass_the_limit_by_no_byte(
    store: FileStoreManager, tmp_path: Path
) -> None:
    limits = Limits(max_file_size=MOST)
    store.store_segment(plain(1, b"x"))

    def send_until_refused(_: int) -> int:
        number, took = 2, 0
        with FileStoreManager(tmp_path / "storage", durability="none", limits=limits) as mine:
            while took < MOST:
                try:
                    mine.store_segment(plain(number, b"x" * 3))
                    number, took = number + 1, took + 1
                except SequenceError as error:
                    number = error.expected
                except LimitError:
                    break
        return took

    with ThreadPoolExecutor(4) as senders:
        list(senders.map(send_until_refused, range(4)))
    (left,) = store.transfers()
    assert left.bytes_received == MOST, "promise 5: what is refused changes nothing"


def test_a_segment_that_comes_before_its_turn_is_judged_when_its_turn_has_come(
    tmp_path: Path,
) -> None:
    class Overtaken(FileStoreManager):
        def store_segment(self, message: Any) -> Any:
            if message.other_fields["segment_number"] == "3":
                super().store_segment(plain(2, b"x" * 40))
            return super().store_segment(message)

    limits = Limits(max_file_size=MOST)
    storage = str(tmp_path / "storage")
    with Overtaken(storage, durability="none", limits=limits) as store:
        config = ServiceConfig(str(tmp_path), storage)
        service = handlers.StoreHandlers(store, config)
        service.store(plain(1, b"x" * 40))
        answer = service.store(plain(3, b"x" * 40))
        assert answer.fields.get("error") == "refused"
        (left,) = store.transfers()
        assert left.bytes_received == 80


@pytest.mark.parametrize(
    "option", ["max_file_size", "max_transfers", "max_unfinished_bytes", "min_free"]
)
@pytest.mark.parametrize("value", [-1, True, 1.5, "100", "101%", "-1%", "%", "1e1%", ""])
def test_a_limit_that_cannot_be_is_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=option) as caught:
        Limits(**{option: value})
    assert (caught.value.option, caught.value.received) == (option, value)


class Roomy(Disk):
    """A disk of 1000 bytes, so and so many of them free."""

    def __init__(self) -> None:
        self.free = 1000

    def space(self, _fd: int) -> tuple[int, int]:
        return self.free, 1000


Limited = Callable[..., FileStoreManager]


@pytest.fixture
def limited(manager: OpenStore, disk: Roomy) -> Limited:
    """Opens managers over one storage with limits: ``limited(max_transfers=1)``."""
    return lambda **limits: manager("none", limits=Limits(**limits), disk=disk)


@pytest.fixture
def disk() -> Roomy:
    return Roomy()


def one(file_id: str, number: int, payload: bytes, **fields: str) -> Any:
    return message(payload, file_id=file_id, segment_number=str(number), **fields)


def refused(store: FileStoreManager, what: Any) -> tuple[str, int, int, int]:
    """Which limit refuses a message, and why; it changes nothing."""
    before = everything(store)
    error = outcome(store.store_segment, what)
    assert isinstance(error, LimitError), f"promise 5: {error!r}"
    assert everything(store) == before, "promise 5: what is refused changes nothing"
    assert error.file_id == what.other_fields["file_id"]
    return error.option, error.limit, error.used, error.wanted


def test_no_more_transfers_are_begun_than_there_may_be(limited: Limited) -> None:
    store = limited(max_transfers=2)
    for file_id in ("a", "b"):
        store.store_segment(one(file_id, 1, b"x"))
    assert refused(store, one("c", 1, b"x")) == ("max_transfers", 2, 2, 3)
    # Those that there are go on, repeats are answered, and a file in one segment is none.
    store.store_segment(one("a", 1, b"x"))
    store.store_segment(one("a", 2, b"y"))
    store.store_segment(one("whole", 1, b"w", **claim(b"w", "whole")))
    store.store_segment(one("a", 3, b"z", **claim(b"xyz")))
    store.store_segment(one("c", 1, b"x"))
    assert refused(store, one("d", 1, b"x")) == ("max_transfers", 2, 2, 3)
    store.cancel("b")
    store.store_segment(one("d", 1, b"x"))


@over_two_folders
def test_what_is_there_stays_whatever_the_limits_become(limited: Limited) -> None:
    store = limited()
    for file_id in ("a", "b", "c"):
        store.store_segment(one(file_id, 1, b"x" * 50))
    smaller = limited(max_file_size=10, max_transfers=1, max_unfinished_bytes=100, min_free="99%")
    assert len(smaller.transfers()) == 3
    for file_id in ("a", "b"):
        smaller.store_segment(one(file_id, 1, b"x" * 50))
        smaller.cancel(file_id)
    assert store.store_segment(one("c", 2, b"", **claim(b"x" * 50))).file_result == "store"


def test_unfinished_transfers_have_no_more_bytes_together_than_they_may(limited: Limited) -> None:
    store = limited(max_unfinished_bytes=100)
    store.store_segment(one("a", 1, b"x" * 40))
    assert refused(store, one("b", 1, b"x" * 61)) == ("max_unfinished_bytes", 100, 40, 101)
    assert refused(store, one("b", 1, b"", size="61")) == ("max_unfinished_bytes", 100, 40, 101)
    store.store_segment(one("b", 1, b"x" * 10, size="60"))
    # What it says of later segments does not count before they come.
    store.store_segment(one("b", 2, b"x" * 50, size="1000"))
    for _ in range(2):
        assert refused(store, one("b", 3, b"x")) == ("max_unfinished_bytes", 100, 100, 101)
    store.store_segment(one("b", 3, b""))
    # What ends a transfer is taken, however much it brings.
    whole = b"x" * 40 + b"y" * 500
    assert store.store_segment(one("a", 2, b"y" * 500, **claim(whole))).file_result == "store"
    store.store_segment(one("b", 4, b"x" * 40))
    assert refused(store, one("b", 5, b"x")) == ("max_unfinished_bytes", 100, 100, 101)
    store.store_segment(one("one", 1, b"y" * 500, **claim(b"y" * 500, "one")))


@over_two_folders
def test_what_finds_no_place_again_is_not_written_before_it_is_refused(
    manager: OpenStore,
) -> None:
    class Written(Disk):
        bytes = 0

        def pwrite(self, fd: int, data: Any, offset: int) -> int:
            self.bytes += len(data)
            return super().pwrite(fd, data, offset)

    disk = Written()
    store = manager("segment", limits=Limits(max_unfinished_bytes=100), disk=disk)
    store.store_segment(one("a", 1, b"x" * 60))
    assert refused(store, one("a", 2, b"x" * 50)) == ("max_unfinished_bytes", 100, 60, 110)
    before = disk.bytes
    for _ in range(3):
        assert refused(store, one("a", 2, b"x" * 50)) == ("max_unfinished_bytes", 100, 60, 110)
    assert disk.bytes == before
    store.store_segment(one("a", 2, b"x" * 40))


def test_a_file_may_say_that_it_is_larger_than_any_number_of_sqlites(limited: Limited) -> None:
    most = 10**40
    store = limited(max_transfers=most, max_unfinished_bytes=most)
    store.store_segment(one("a", 1, b"x", size=str(most)))
    store.store_segment(one("a", 2, b"y"))
    wanted = refused(store, one("b", 1, b"x", size=str(most)))
    assert wanted == ("max_unfinished_bytes", most, 2, most + 2)


@pytest.mark.parametrize("kept", [400, "40%"])
@over_two_folders
def test_new_files_are_refused_before_the_segments_of_others_where_little_is_free(
    limited: Limited, disk: Roomy, kept: int | str
) -> None:
    store = limited(min_free=kept)
    disk.free = 410
    store.store_segment(one("a", 1, b"x" * 10))
    disk.free = 400
    new = [one("b", 1, b"x"), one("b", 1, b"x", **claim(b"x"))]
    for what in new:
        assert refused(store, what) == ("min_free", 600, 600, 601)
    said = one("b", 1, b"", size="300")
    assert refused(store, said) == ("min_free", 600, 600, 900)
    disk.free = 210
    store.store_segment(one("a", 2, b"x" * 10))
    disk.free = 200
    assert refused(store, one("a", 3, b"x")) == ("min_free", 800, 800, 801)
    # What ends a transfer, and what brings nothing, always goes.
    disk.free = 0
    store.store_segment(one("a", 2, b"x" * 10))
    assert store.store_segment(one("a", 3, b"y", **claim(b"x" * 20 + b"y"))).file_result == "store"
    assert store.store_segment(one("a", 3, b"y", **claim(b"x" * 20 + b"y"))).file_result == "store"
    assert store.store_segment(one("a", 1, b"", result="cancel")).file_result == "cancel"


def test_the_file_system_is_not_asked_where_nothing_is_kept_free(manager: OpenStore) -> None:
    class Unasked(Disk):
        def space(self, fd: int) -> tuple[int, int]:
            raise AssertionError(fd)

    limits = Limits(max_file_size=100, max_transfers=10, max_unfinished_bytes=100)
    store = manager("none", limits=limits, disk=Unasked())
    store.store_segment(one("a", 1, b"x"))
    store.store_segment(one("a", 2, b"", **claim(b"x")))


def test_what_is_free_is_asked_of_the_storages_own_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    asked = Disk().space(fd := os.open(tmp_path, os.O_RDONLY))
    os.close(fd)
    assert asked[1] == found.f_blocks * found.f_frsize
    assert 0 < asked[0] <= asked[1]
    with FileStoreManager(tmp_path / "s", limits=Limits(min_free=asked[1])) as store:
        error = outcome(store.store_segment, one("a", 1, b"x"))
        assert isinstance(error, LimitError)
        assert error.option == "min_free"
        assert "are to stay free" in str(error)


@pytest.mark.parametrize(
    "limits", [{"max_transfers": 2}, {"max_unfinished_bytes": 20}, {"min_free": 100}]
)
@over_two_folders
def test_what_is_over_makes_room_before_something_is_refused(
    manager: OpenStore, storage: Path, ticks: list[float], limits: dict[str, Any]
) -> None:
    class Emptied(Roomy):
        def space(self, _fd: int) -> tuple[int, int]:
            left = len(os.listdir(Path(storage, ".workdir", "staging")))
            return 1000 - 450 * left, 1000

    store = manager("none", limits=Limits(**limits), disk=Emptied(), expire_after=60.0)
    ticks[0] += 7200
    for file_id in ("a", "b"):
        store.store_segment(one(file_id, 1, b"x" * 10))
    # Nothing is dropped for it that is not over.
    assert refused(store, one("c", 1, b"x" * 10))[0] in limits
    ticks[0] += 61
    assert store.store_segment(one("c", 1, b"x" * 10)).segments_received == 1
    assert [left.file_id for left in store.transfers()] == ["c"]


def test_every_error_of_the_package_is_in_the_documented_hierarchy() -> None:
    table = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    kinds = [
        kind
        for module in (errors, handlers)
        for _name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith("txstore")
        if not kind.__name__.startswith("_")
    ]
    assert len(kinds) > 25
    for kind in kinds:
        assert kind.__module__ == "txstore.errors"
        assert issubclass(kind, TxStoreError)
        if kind in (TxStoreError, errors.FabricError):
            continue
        plain_kinds = [base for base in kind.__mro__ if hasattr(builtins, base.__name__)]
        assert plain_kinds[0] not in (Exception, BaseException, object), kind
        assert f"`{kind.__name__}`" in table, kind
