"""Code written for ``dxlfiletransferclient.store`` runs unchanged on ``txstore.store``."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import FULL, claim, request, sha256, transfer_messages

import txstore

THEIRS = "dxlfiletransferclient"
pytest.importorskip(THEIRS)

DATA = random.Random("drop in").randbytes(9_000)


def modules(name: str) -> tuple[ModuleType, ModuleType]:
    """Theirs and ours of that name."""
    return importlib.import_module(f"{THEIRS}.{name}"), importlib.import_module(f"txstore.{name}")


def public(thing: object) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if not name.startswith("_")}


# Names and signatures


@pytest.mark.parametrize("name", ["FileStoreProp", "FileStoreResultProp", "HashType"])
def test_the_constants_have_their_names_and_values(name: str) -> None:
    theirs, ours = (getattr(module, name) for module in modules("constants"))
    assert public(theirs) == public(ours)
    assert getattr(txstore, name) is ours


def test_every_public_name_of_the_module_is_there() -> None:
    theirs, ours = modules("store")
    defined = {
        name
        for name, thing in public(theirs).items()
        if getattr(thing, "__module__", "") == theirs.__name__
    }
    assert defined == {"FileStoreManager", "FileStoreSegmentResult"}
    for name in defined:
        missing = public(getattr(theirs, name)).keys() - public(getattr(ours, name)).keys()
        assert missing == set()
        assert getattr(txstore, name) is getattr(ours, name)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("FileStoreManager", "__init__"),
        ("FileStoreManager", "store_segment"),
        ("FileStoreSegmentResult", "__init__"),
        ("FileStoreSegmentResult", "to_dict"),
    ],
)
def test_every_call_that_theirs_takes_ours_takes(kind: str, method: str) -> None:
    theirs, ours = (
        inspect.signature(getattr(getattr(module, kind), method)).parameters
        for module in modules("store")
    )
    positional = [p for p in ours.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.kind, p.default) for p in positional] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize("result", [None, "store", "cancel"])
def test_a_result_has_the_same_properties_and_dictionary(result: str | None) -> None:
    theirs, ours = (module.FileStoreSegmentResult("id", 7, result) for module in modules("store"))
    for name in ("file_id", "segments_received", "file_result"):
        assert getattr(ours, name) == getattr(theirs, name)
        with pytest.raises(AttributeError):
            setattr(ours, name, "x")
    assert ours.to_dict() == theirs.to_dict()
    assert list(ours.to_dict()) == list(theirs.to_dict())
    short, long = (module.FileStoreSegmentResult("id", 7) for module in modules("store"))
    assert short.to_dict() == long.to_dict()


# Conversations


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A store of theirs and one of ours."""
    theirs, ours = modules("store")
    with ours.FileStoreManager(str(tmp_path / "ours"), durability="none") as store:
        yield theirs.FileStoreManager(str(tmp_path / "theirs")), store


def stored(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """What readers find, but for the stores' own folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in (".workdir", ".txstore")
    }


def tell(store: Any, **message: Any) -> dict[str, Any] | str:
    """The answer as it goes over the wire, or that it was refused."""
    payload = message.pop("payload", b"")
    try:
        answer = store.store_segment(request(payload, **message))
    except ValueError:
        return "refused"
    found: dict[str, Any] = answer.to_dict()
    assert (found["file_id"], found["segments_received"]) == (
        answer.file_id,
        answer.segments_received,
    )
    assert found.get("result") == answer.file_result
    return found


@pytest.mark.parametrize("size", [1000, 2999, 3000, 9000])
@pytest.mark.parametrize("name", ["file", "a/b/file", "./file", "a//b"])
def test_a_valid_transfer_has_the_same_answers_and_file(
    stores: tuple[Any, Any], tmp_path: Path, size: int, name: str
) -> None:
    for one in transfer_messages(DATA, size, name=name):
        theirs, ours = (tell(store, payload=one.payload, **one.other_fields) for store in stores)
        assert ours == theirs
    for folder in ("theirs", "ours"):
        assert stored(tmp_path / folder) == {os.path.normpath(name): DATA}


def test_an_assigned_id_looks_the_same(stores: tuple[Any, Any]) -> None:
    found = [store.store_segment(request(b"x", segment_number="1")) for store in stores]
    shapes = ["".join("x" if c.isalnum() else c for c in one.file_id) for one in found]
    assert shapes[0] == shapes[1]
    for store, one in zip(stores, found, strict=True):
        assert one.file_id == one.file_id.lower()
        fields = {"segment_number": "2", "file_id": one.file_id, **claim(b"xy")}
        assert tell(store, payload=b"y", **fields) == {
            "file_id": one.file_id,
            "segments_received": 2,
            "result": "store",
        }


@pytest.mark.parametrize(
    "message",
    [
        {"segment_number": "x"},
        {"segment_number": ""},
        {"segment_number": "2"},
        {"segment_number": "0"},
        {},
        {"segment_number": "1", "file_id": "a.b"},
        {"segment_number": "1", "file_id": "a/b"},
        {"segment_number": "1", "file_id": "a\\b"},
        {"segment_number": "1", "name": "../x"},
        {"segment_number": "1", "name": "/etc/x"},
        {"segment_number": "1", "name": ".workdir/x"},
        {"segment_number": "1", "size": "x"},
        {"segment_number": "1", "result": "bogus"},
        {"segment_number": "1", "result": "store", "size": "1", "hash_sha256": "0" * 64},
        {"segment_number": "1", "result": "store", "name": "x", "hash_sha256": "0" * 64},
        {"segment_number": "1", "result": "store", "name": "x", "size": "1"},
        {"segment_number": "1", **claim(b"other")},
        {"segment_number": "1", **claim(b"x"), "size": "2"},
        {"segment_number": "1", **claim(b"x"), "hash_sha256": sha256(b"y")},
    ],
    ids=str,
)
def test_what_theirs_refuses_as_a_value_error_ours_does_too(
    stores: tuple[Any, Any], message: dict[str, str]
) -> None:
    assert [tell(store, payload=b"x", **message) for store in stores] == ["refused", "refused"]


#: A step of a conversation: which transfer, and what comes next for it.
steps = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "Two"]),
        st.sampled_from(["plain", "plain", "empty", "store", "store", "cancel", "gap", "wrong"]),
        st.sampled_from(["file", "a/file", "a/b/file", "b"]),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=500 if FULL else 60)
def test_any_conversation_in_order_has_the_same_answers(talk: list[tuple[str, str, str]]) -> None:
    """Theirs refuses what ours may answer only where a message comes again."""
    their_module, our_module = modules("store")
    with ExitStack() as opened:
        folders = [opened.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        ours = opened.enter_context(our_module.FileStoreManager(folders[1], durability="none"))
        stores = (their_module.FileStoreManager(folders[0]), ours)
        sent: dict[str, list[bytes]] = {}
        for step, (file_id, what, name) in enumerate(talk):
            parts = sent.setdefault(file_id, [])
            payload = b"" if what == "empty" else DATA[step * 7 : step * 7 + 50]
            number = len(parts) + (3 if what == "gap" else 1)
            message = {"file_id": file_id, "segment_number": str(number)}
            whole = b"".join(parts) + payload
            if what == "store":
                message |= claim(whole, name)
            elif what == "wrong":
                message |= claim(whole + b"more", name)
            elif what == "cancel":
                message["result"] = "cancel"
            answers = [tell(store, payload=payload, **message) for store in stores]
            assert answers[0] == answers[1], (step, message)
            if what in ("store", "wrong", "cancel"):
                del sent[file_id]
            elif what != "gap":
                parts.append(payload)
        assert stored(folders[0]) == stored(folders[1])


# A program

#: A service's callback and a sender's loop as somebody would have written them for upstream.
PROGRAM = """
import hashlib, os, sys
from dxlclient.message import Request
from {package}.constants import FileStoreProp, FileStoreResultProp
from {package}.store import FileStoreManager

class Storage(object):
    def __init__(self, folder, working):
        self.manager = FileStoreManager(storage_dir=folder, working_dir=working)

    def on_request(self, request):
        try:
            result = self.manager.store_segment(request)
        except ValueError as ex:
            return "error"
        if result.file_result == FileStoreResultProp.STORE:
            print("stored", result.segments_received)
        elif result.file_result is FileStoreResultProp.NONE:
            print("segment", result.segments_received)
        return result.to_dict()

storage = Storage(sys.argv[1], sys.argv[2])
data = os.urandom(100000)
file_id = None
number = 0
for start in range(0, len(data), 30000):
    number += 1
    request = Request("/file/store")
    request.payload = data[start:start + 30000]
    request.other_fields = {{FileStoreProp.SEGMENT_NUMBER: str(number)}}
    if file_id:
        request.other_fields[FileStoreProp.ID] = file_id
    if start + 30000 >= len(data):
        request.other_fields[FileStoreProp.NAME] = os.path.join("sub", "file.bin")
        request.other_fields[FileStoreProp.SIZE] = str(len(data))
        request.other_fields[FileStoreProp.HASH_SHA256] = hashlib.sha256(data).hexdigest()
        request.other_fields[FileStoreProp.RESULT] = FileStoreResultProp.STORE
    answer = storage.on_request(request)
    file_id = answer[FileStoreProp.ID]
    print(sorted(answer), answer[FileStoreProp.SEGMENTS_RECEIVED])
with open(os.path.join(sys.argv[1], "sub", "file.bin"), "rb") as stored:
    assert stored.read() == data
print(storage.on_request(Request("/file/store")))
"""


def test_a_program_needs_a_changed_import_and_nothing_else(tmp_path: Path) -> None:
    printed = []
    for package in (THEIRS, "txstore"):
        folders = [str(tmp_path / package / "storage"), str(tmp_path / package / "working")]
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(package=package), *folders],
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        printed.append(process.stdout)
    assert printed[0] == printed[1]
    assert "stored 4" in printed[1]


def test_a_subclass_of_theirs_is_a_subclass_of_ours(tmp_path: Path) -> None:
    """Services wrap the manager: what they override is what is called."""
    for n, module in enumerate(modules("store")):

        class Counting(module.FileStoreManager):  # type: ignore[misc,name-defined]
            def __init__(self, storage_dir: str) -> None:
                super().__init__(storage_dir, None)
                self.stored = 0

            def store_segment(self, message: Any) -> Any:
                result = super().store_segment(message)
                self.stored += result.file_result == "store"
                return result

        store = Counting(str(tmp_path / str(n)))
        for one in transfer_messages(DATA, 4000):
            store.store_segment(request(one.payload, **one.other_fields))
        assert store.stored == 1
        assert stored(tmp_path / str(n)) == {"file.bin": DATA}


def test_a_subclass_of_theirs_that_keeps_its_folder_is_a_subclass_of_ours(tmp_path: Path) -> None:
    """Under a name that ours has too, before or after ours is made."""
    for n, module in enumerate(modules("store")):

        class Keeping(module.FileStoreManager):  # type: ignore[misc,name-defined]
            def __init__(self, storage_dir: str) -> None:
                self.storage_dir = self.working_dir = storage_dir
                super().__init__(storage_dir, None)
                self.storage_dir = self.working_dir = "the service's own"

        store = Keeping(str(tmp_path / str(n)))
        for one in transfer_messages(DATA, 4000):
            store.store_segment(request(one.payload, **one.other_fields))
        assert store.storage_dir == store.working_dir == "the service's own"
        assert stored(tmp_path / str(n)) == {"file.bin": DATA}


def test_going_back_to_theirs_finds_the_files(tmp_path: Path) -> None:
    """What ours stored is files and nothing else."""
    their_module, our_module = modules("store")
    with our_module.FileStoreManager(tmp_path, tmp_path.parent / "working") as ours:
        for one in transfer_messages(DATA, 4000):
            ours.store_segment(one)
    theirs = their_module.FileStoreManager(str(tmp_path), str(tmp_path.parent / "theirs"))
    for one in transfer_messages(DATA[::-1], 4000, name="more"):
        theirs.store_segment(request(one.payload, **one.other_fields))
    assert stored(tmp_path) == {"file.bin": DATA, "more": DATA[::-1]}
