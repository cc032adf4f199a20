"""Every code block of README.md and docs/using.md is run, in order, in one folder: a checkout as a
new user has it.

Two blocks begin with ``python3 -m venv``.  The one with the test command is what ``.ci/run`` runs,
word by word; running it here would never end.  In the other one the environment is made for real
under ``TXSTORE_CI=1`` and ``TXSTORE_FULL=1``; otherwise it is one that shares the dependencies
with this Python, so that neither time nor a registry is needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from environments import install, make_environment

from benchmarks import report
from txstore.cli.commands import txstore

ROOT = Path(__file__).parents[2]
README, USING, FABRIC = ROOT / "README.md", ROOT / "docs" / "using.md", ROOT / "docs" / "fabric.md"
FOR_REAL = bool(os.environ.get("TXSTORE_CI") or os.environ.get("TXSTORE_FULL"))
SET_UP = re.compile(
    r"python3 -m venv \.venv && \.venv/bin/pip install -q '\.\[(?P<extras>[a-z,]+)\]'"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what it says, its document, and the line that it begins on."""

    language: str
    text: str
    document: str
    line: int

    @property
    def is_test_command(self) -> bool:
        return "-m pytest" in self.text


def blocks() -> list[Block]:
    """All fenced blocks of both documents."""
    return [block for document in (README, USING) for block in _blocks_of(document)]


def _blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for m in found:
        yield Block(m[1], m[2], document.name, text[: m.start()].count("\n") + 2)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working tree, without what a clone would not have, as the current folder."""
    folder = tmp_path / "txstore"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, folder, ignore=ignored)
    shutil.copytree(ROOT / ".ci", folder / ".ci", ignore=shutil.ignore_patterns("venv*"))
    monkeypatch.chdir(folder)
    # `txstore` and `python` after the set-up are those that it installed.
    monkeypatch.setenv("PATH", f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}")
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert [b for b in blocks() if b.language not in ("bash", "python")] == []


def test_there_is_one_test_command_and_it_is_what_ci_runs() -> None:
    [block] = [block for block in blocks() if block.is_test_command]
    [command] = block.text.splitlines()
    # What .ci/run does to find it:
    found = subprocess.run(
        ["grep", "-m1", "-e", "-m pytest", README], capture_output=True, text=True, check=True
    )
    assert found.stdout.rstrip("\n") == command
    assert "TXSTORE_CI_COMMAND=$(grep -m1 -e '-m pytest' README.md)" in (
        ROOT / ".ci" / "run"
    ).read_text(encoding="utf-8")
    assert os.environ.get("TXSTORE_CI_COMMAND", command) == command


@pytest.mark.usefixtures("checkout")
def test_every_code_block_runs() -> None:
    to_run = [block for block in blocks() if not block.is_test_command]
    assert to_run
    for block in to_run:
        where = f"{block.document}:{block.line}"
        if block.language == "python":
            run_python(block, where)
        else:
            run_bash(block.text, where)


def run_python(block: Block, where: str) -> None:
    """Run it by itself, as somebody who copies this block only; at a port that nobody has."""
    names: dict[str, Any] = {"__name__": "__main__"}
    text = block.text.replace("9464", "0")
    code = compile("\n" * (block.line - 1) + text, where, "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)


def run_bash(text: str, where: str) -> None:
    """Run it as pasted, the set-up adapted as said above."""
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", adapted(text)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == 0, f"{where}:\n{text}\n{process.stdout}"


def adapted(text: str) -> str:
    """`text` with an environment that is there already, unless it is to be made for real."""
    if FOR_REAL or (found := SET_UP.search(text)) is None:
        return text
    # What is installed is this checkout, as the block says.
    install(make_environment(Path(".venv").absolute()), f".[{found['extras']}]")
    return text.replace(found[0], "true")


def options_of(name: str) -> set[str]:
    """The options that a command has."""
    command = txstore.get_command(click.Context(txstore), name)
    assert command is not None
    return _options(command)


def _options(command: click.Command) -> set[str]:
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {one for option in options for one in (option.opts[0], *option.secondary_opts)}


def described(document: Path) -> set[str]:
    """The options that a document names, in text of the machine's."""
    code = re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8"))
    return set(re.findall(r"--[a-z-]+", " ".join(code)))


COMMANDS = txstore.list_commands(click.Context(txstore))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described(name: str) -> None:
    assert f"`txstore {name}" in README.read_text(encoding="utf-8")
    assert options_of(name) - described(USING) - described(FABRIC) == set()


def test_no_option_is_described_that_there_is_not() -> None:
    known = _options(txstore).union({"--help"}, *map(options_of, COMMANDS))
    for document in (README, USING, FABRIC):
        assert described(document) - known == set(), document.name


def test_the_table_of_figures_is_that_of_the_committed_run() -> None:
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert not found["quick"]
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = text.partition(report.BEGIN)[2].partition(report.END)[0]
    assert table.strip() == report.targets_table(found["targets"])
