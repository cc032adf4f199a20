"""What ``txstore --help`` shows, its examples, and the completion of shells."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_driver import run, run_process

from txstore.cli.commands import GROUPS, txstore

COMMANDS = [name for names in GROUPS.values() for name in names]


def command(name: str) -> click.Command:
    found = txstore.get_command(click.Context(txstore), name)
    assert found is not None
    return found


def test_every_command_stands_in_one_group_of_the_help() -> None:
    modules = Path(sys.modules[txstore.callback.__module__].__file__ or "").parent.glob("*.py")
    assert sorted(COMMANDS) == sorted({path.stem for path in modules} - {"__init__"})
    text = run("--help").stdout
    sections = dict(re.findall(r"^([A-Z].+):\n((?:  \w+ .+\n)+)", text, re.MULTILINE))
    for title, names in GROUPS.items():
        assert tuple(line.split()[0] for line in sections[title].splitlines()) == names


@pytest.mark.parametrize("width", [40, 80])
def test_the_list_of_commands_has_a_line_for_each(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("--help").stdout.splitlines()
    of_commands = [line for line in lines if re.match(rf"  ({'|'.join(COMMANDS)})  ", line)]
    assert len(of_commands) == len(COMMANDS)
    if width == 80:
        assert [line for line in of_commands if line.endswith("...")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_help_are_command_lines(name: str) -> None:
    _, there, lines = run(name, "--help").stdout.partition("\n  Examples:\n")
    assert there
    for line in lines.strip().splitlines():
        # Of a line for a shell, what is the command's.
        [found] = re.findall(r"txstore [^|>)]+", line)
        words = shlex.split(found)
        assert words[:2] == ["txstore", name]
        if "*.jpg" in words:
            words[words.index("*.jpg") : words.index("*.jpg") + 1] = ["1.jpg", "2.jpg"]
        # Parsed, with all checks of its values, and not carried out.
        command(name).make_context(name, words[2:]).close()


# Completion

ANSWER = """
{script}
compopt() {{ :; }}
COMP_WORDS=({words}) COMP_CWORD={last}
_txstore_completion txstore
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of this Python can be found, in a folder with a file and a folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "txstore").write_text(f'#!/bin/sh\nexec {sys.executable} -m txstore "$@"\n')
    (tmp_path / "bin" / "txstore").chmod(0o755)
    (tmp_path / "file.txt").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["txstore", "c"], ["cancel", "check", "completion"]),
        (["txstore", "put", "--dur"], ["--durability"]),
        (["txstore", "put", "--durability", ""], ["segment", "file", "none"]),
        (["txstore", "completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes_what_is_begun(words: list[str], expected: list[str]) -> None:
    script = run("completion", "bash").stdout
    text = ANSWER.format(script=script, words=shlex.join(words), last=len(words) - 1)
    done = subprocess.run(
        ["bash", "--norc", "-c", text], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (expected, "")


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("txstore put ", "file"),
        ("txstore ls --storage-dir ", "dir"),
        ("txstore send f --config ", "dir"),
        ("txstore get n --output ", "file"),
    ],
)
def test_paths_are_left_to_the_shell(
    monkeypatch: pytest.MonkeyPatch, words: str, kind: str
) -> None:
    monkeypatch.setenv("_TXSTORE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert run_process().stdout == f"{kind},\n"


@pytest.mark.parametrize(("shell", "says"), [("zsh", "#compdef txstore"), ("fish", "complete ")])
def test_other_shells_get_theirs(shell: str, says: str) -> None:
    script = run("completion", shell).stdout
    assert says in script
    assert f"_TXSTORE_COMPLETE={shell}_complete" in script


def test_a_shell_that_is_not_known_is_wrong_usage() -> None:
    assert "'tcsh' is not one of" in run("completion", "tcsh", code=2).stderr
