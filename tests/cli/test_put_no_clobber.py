"""``txstore put --no-clobber``: what is stored stays, whoever is quicker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_driver import put, run

from txstore import FileStoreManager
from txstore.cli import stream
from txstore.protocol.request import Message

OLD = b"what was there"


@pytest.fixture(params=[10, 3000], ids=["one segment", "three"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(request.param))
    return path


def left_over(storage: Path) -> int:
    with FileStoreManager(storage) as store:
        return store.count_transfers()


@pytest.fixture
def not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(FileStoreManager, "store_segment", refuse)


def test_a_new_file_is_stored_and_put_again_is_stored_already(source: Path, storage: Path) -> None:
    command = put(source, storage, "--no-clobber")
    assert run(*command).stdout.startswith("stored f: ")
    assert (storage / "f").read_bytes() == source.read_bytes()
    assert run(*command).stdout.startswith("already stored f: ")


@pytest.mark.usefixtures("not_sent")
@pytest.mark.parametrize("kind", ["a file", "a link to nothing"])
def test_what_has_the_name_stays_and_nothing_is_sent(
    source: Path, storage: Path, kind: str
) -> None:
    storage.mkdir()
    if kind == "a file":
        (storage / "f").write_bytes(OLD)
    else:
        (storage / "f").symlink_to("nothing")
    shown = run(*put(source, storage, "--no-clobber"))
    assert shown.stdout == "not stored f: a file has that name already\n"
    assert (storage / "f").is_symlink() or (storage / "f").read_bytes() == OLD


def quicker(storage: Path) -> Callable[[FileStoreManager, Message], object]:
    """Has somebody else store a file under the name before the last message."""
    store_segment = FileStoreManager.store_segment

    def slow(self: FileStoreManager, message: Message) -> object:
        if "result" in message.other_fields:
            (storage / "f").write_bytes(OLD)
        return store_segment(self, message)

    return slow


def test_who_was_quicker_is_not_replaced_and_nothing_is_kept(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileStoreManager, "store_segment", quicker(storage))
    [line] = run(*put(source, storage, "--no-clobber", "--json")).stdout.splitlines()
    found = json.loads(line)
    assert (found["status"], found["sha256"], found["error"]) == ("name_taken", None, None)
    assert (storage / "f").read_bytes() == OLD
    assert left_over(storage) == 0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_standard_input_replaces_nothing_either(
    storage: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    reader, writer = os.pipe()
    os.write(writer, os.urandom(3000))
    os.close(writer)
    monkeypatch.setattr(stream, "_DESCRIPTOR", reader)
    if when == "before":
        storage.mkdir()
        (storage / "f").write_bytes(OLD)
    else:
        monkeypatch.setattr(FileStoreManager, "store_segment", quicker(storage))
    shown = run(*put(Path("-"), storage, "--name", "f", "--no-clobber"))
    assert shown.stdout == "not stored f: a file has that name already\n"
    assert (storage / "f").read_bytes() == OLD
    assert left_over(storage) == 0
    assert (os.read(reader, 1) != b"") == (when == "before")  # nothing was read in vain
    os.close(reader)
