"""``txstore check`` and ``txstore repair``: what they print, and how they end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_driver import run, run_process
from damage import ORPHAN, fill, staged

from txstore import FileStoreManager
from txstore.checks import KINDS


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
    return storage


def orphan(storage: Path) -> Path:
    path = storage / ".workdir" / "staging" / ORPHAN
    path.write_text("hello")
    return path


def test_check_says_that_nothing_is_wrong(storage: Path) -> None:
    for options in ([], ["--deep"]):
        shown = run("check", "--storage-dir", storage, *options)
        assert (shown.stdout, shown.stderr) == ("Nothing is wrong.\n", "")
    assert json.loads(run("check", "--storage-dir", storage, "--json").stdout) == []


def test_check_tells_each_finding_and_what_to_do(storage: Path) -> None:
    path = orphan(storage)
    shown = run("check", "--storage-dir", storage, code=1)
    assert shown.stdout.splitlines() == [
        f"orphan: {path} has 5 bytes that belong to no transfer: a worker died here.",
        f"    {KINDS['orphan'].remedy}",
        "1 finding.",
    ]
    assert path.exists()


def test_check_tells_programs_in_json(storage: Path) -> None:
    path = orphan(storage)
    [found] = json.loads(run("check", "--storage-dir", storage, "--json", code=1).stdout)
    assert found["kind"] == "orphan"
    assert found["facts"] == {"path": str(path), "size": 5, "name": ORPHAN}
    assert set(found) == {"kind", "meaning", "remedy", "mend", "facts"}


def test_check_leaves_out_what_is_ignored(storage: Path) -> None:
    (storage / "one").unlink()
    assert "stored-missing: 'one'" in run("check", "--storage-dir", storage, code=1).stdout
    run("check", "--storage-dir", storage, "--ignore", "stored-missing")
    shown = run("check", "--storage-dir", storage, "--ignore", "nonsense", code=2)
    assert "no finding is of the kind 'nonsense'" in shown.stderr


def test_check_has_a_code_of_its_own_where_it_cannot_look(tmp_path: Path, storage: Path) -> None:
    shown = run("check", "--storage-dir", tmp_path / "nothing", code=2)
    assert shown.stderr.startswith("Error: there is no store here:")
    (storage / ".workdir" / "journal.db").write_bytes(b"")
    run("check", "--storage-dir", storage, code=1)


def test_repair_says_what_it_will_do_and_does_it(storage: Path) -> None:
    path = orphan(storage)
    os.truncate(staged_one(storage), 5)
    said = f"orphan: {path} has 5 bytes that belong to no transfer: a worker died here."
    shown = run("repair", "--dry-run", "--storage-dir", storage, code=1)
    assert shown.stdout.splitlines()[:2] == [said, "    would remove them"]
    assert shown.stdout.splitlines()[-1] == "1 could be mended, 1 not."
    assert path.exists()
    shown = run("repair", "--storage-dir", storage, code=1)
    assert shown.stdout.splitlines()[:2] == [said, "    will remove them"]
    assert shown.stdout.splitlines()[2].startswith("transfer-short: Bytes of transfer 'open'")
    assert shown.stdout.splitlines()[-1] == "1 mended, 1 not."
    assert not path.exists()
    run("cancel", "open", "--storage-dir", storage)
    assert run("repair", "--storage-dir", storage).stdout == "Nothing is wrong.\n"


def test_repair_tells_programs_in_json(storage: Path) -> None:
    path = orphan(storage)
    os.truncate(staged_one(storage), 5)
    command = ("repair", "--storage-dir", storage, "--json")
    for options, mended in (["--dry-run"], False), ([], True):
        found = json.loads(run(*command, *options, code=1).stdout)
        assert {one["kind"]: one["mended"] for one in found} == {
            "orphan": mended,
            "transfer-short": False,
        }
        assert set(found[0]) == {"kind", "meaning", "remedy", "mend", "facts", "mended"}
        assert path.exists() == (not mended)
    run("cancel", "open", "--storage-dir", storage)
    assert json.loads(run(*command).stdout) == []


def staged_one(storage: Path) -> Path:
    [found] = [one for one in (storage / ".workdir" / "staging").iterdir() if one.name != ORPHAN]
    return found


def test_repair_opens_no_store_in_which_it_has_nothing_to_do(storage: Path) -> None:
    """To open one settles things, and may upgrade the journal."""
    os.truncate(staged(storage), 5)
    before = {path: path.stat().st_ctime_ns for path in storage.rglob("*")}
    run("repair", "--storage-dir", storage, code=1)
    assert {path: path.stat().st_ctime_ns for path in storage.rglob("*")} == before


def test_check_as_a_process_ends_with_its_code(storage: Path) -> None:
    run_process("check", "--storage-dir", storage)
    orphan(storage)
    run_process("check", "--storage-dir", storage, code=1)
