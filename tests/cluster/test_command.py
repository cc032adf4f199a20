"""The command, with a store over servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_driver import run
from cluster_servers import Cluster


@pytest.fixture
def where(cluster: Cluster) -> list[str]:
    return ["--storage-dir", cluster.storage_dir, "--working-dir", cluster.working_dir]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a").mkdir(parents=True)
    for name in ("a/1", "a/2", "z"):
        (top / name).write_text(name * 1000)
    return top


def states(*arguments: object) -> list[str]:
    return [json.loads(line)["status"] for line in run(*arguments).stdout.splitlines()]


def test_what_is_stored_is_not_sent_again(cluster: Cluster, where: list[str], tree: Path) -> None:
    command = ["put", "-r", str(tree), "--json", *where]
    assert states(*command) == ["stored"] * 3
    assert states(*command) == ["already_stored"] * 3
    (tree / "a" / "1").write_text("x" * (tree / "a" / "1").stat().st_size)
    assert sorted(states(*command)) == ["already_stored", "already_stored", "stored"]
    assert cluster.files()["tree/a/1"] == (tree / "a" / "1").read_bytes()


def test_a_name_that_is_taken_is_told_before_anything_is_sent(where: list[str], tree: Path) -> None:
    command = ["put", str(tree / "z"), "--no-clobber", "--json", *where]
    assert states(*command) == ["stored"]
    assert states(*command) == ["already_stored"]
    (tree / "z").write_text("other")
    [line] = run(*command).stdout.splitlines()
    assert (json.loads(line)["status"], json.loads(line)["sent"]) == ("name_taken", 0)


def test_files_lists_them(where: list[str], tree: Path) -> None:
    run("put", "-r", tree, "--quiet", *where)
    listed = [json.loads(line) for line in run("files", "--json", *where).stdout.splitlines()]
    assert [(one["name"], one["size"]) for one in listed] == [
        ("tree/a/1", 3000),
        ("tree/a/2", 3000),
        ("tree/z", 1000),
    ]
