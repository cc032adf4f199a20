"""What a store takes at most: exact against any number of senders; a refusal changes nothing."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import claim, everything, message, outcome

from txstore import FileStoreManager, errors
from txstore.dxl import ServiceConfig, handlers
from txstore.errors import LimitError, OptionError, SequenceError, TxStoreError
from txstore.limits import Limits

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
        config = ServiceConfig(str(tmp_path), storage, max_file_size=MOST)
        service = handlers.StoreHandlers(store, config)
        service.store(plain(1, b"x" * 40))
        answer = service.store(plain(3, b"x" * 40))
        assert answer.fields.get("error") == "refused"
        (left,) = store.transfers()
        assert left.bytes_received == 80


@pytest.mark.parametrize("value", [-1, True, 1.5, "100"])
def test_a_limit_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="max_file_size"):
        Limits(max_file_size=value)


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
