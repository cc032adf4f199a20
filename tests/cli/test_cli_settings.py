"""Where the value of an option comes from: the command line, a variable, a file, its default."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import pytest
from cli_driver import run

from txstore import FileStoreManager
from txstore.cli.commands import txstore
from txstore.cli.settings import ONCE, default_file, is_on_fabric, settings_of
from txstore.testing import segment

PLACES = ("option", "variable", "file")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is read, empty yet, in a folder of its own."""
    path = tmp_path / "etc" / "config.toml"
    path.parent.mkdir()
    path.touch()
    monkeypatch.setenv("TXSTORE_CONFIG_FILE", str(path))
    return path


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Path]:
    """A store for each place that may name one, with a transfer that is called as the place is."""
    for place in PLACES:
        with FileStoreManager(tmp_path / place, durability="none") as store:
            store.store_segment(segment(1, b"1", place))
    return {place: tmp_path / place for place in PLACES}


@pytest.mark.parametrize(
    "said",
    [["file"], ["variable"], ["option"], ["file", "variable"], ["file", "option"], [*PLACES]],
    ids="+".join,
)
def test_the_command_line_wins_over_a_variable_and_a_variable_over_the_file(
    file: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    if "file" in said:
        file.write_text(f"storage-dir = {json.dumps(str(stores['file']))}\n")
    if "variable" in said:
        monkeypatch.setenv("TXSTORE_STORAGE_DIR", str(stores["variable"]))
    arguments = ["--storage-dir", stores["option"]] if "option" in said else []
    [found] = json.loads(run("ls", "--json", *arguments).stdout)
    assert found["file_id"] == next(place for place in PLACES if place in said)


def test_a_commands_table_wins_over_what_is_for_all(file: Path, stores: dict[str, Path]) -> None:
    """Which does not ask what else a command has, and says nothing to other commands."""
    file.write_text(
        f"storage-dir = {json.dumps(str(stores['file']))}\n"
        "workers = 4\n[ls]\njson = true\n[expire]\nexpire-after = 0\njson = true\n"
        "[get]\nmistaken = 1\n"
    )
    assert [one["file_id"] for one in json.loads(run("ls").stdout)] == ["file"]
    assert json.loads(run("expire").stdout) == ["file"]


def test_every_option_has_a_variable_and_a_key_of_its_name_but_those_of_one_time() -> None:
    ctx = click.Context(txstore)
    for name in txstore.list_commands(ctx):
        command = txstore.get_command(ctx, name)
        assert command is not None
        for option in (param for param in command.params if isinstance(param, click.Option)):
            called = option.opts[0].removeprefix("--")
            variable = "TXSTORE_" + called.upper().replace("-", "_")
            once = option.opts[0] in ONCE
            assert option.envvar == (None if once else variable)
            assert (called in settings_of(command)) != once


def test_paths_in_the_file_count_from_its_folder_or_from_home(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileStoreManager(file.parent / "below").close()
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.chdir(tmp_path)
    for path in ("below", "~/below"):
        file.write_text(f'storage-dir = "{path}"\n')
        assert run("ls").stdout == "No unfinished transfers.\n"


def test_an_empty_variable_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TXSTORE_STORAGE_DIR", "")
    assert "Missing option '--storage-dir'" in run("ls", code=2).stderr
    assert "TXSTORE_STORAGE_DIR" in run("ls", code=2).stderr
    file.write_text('storage-dir = ""\n')
    assert "the path is empty" in run("ls", code=2).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\nstroage-dir = "s"\n', "line 2: 'stroage-dir' is not known. Known are config, "),
        ('[ls]\nstorage-dir = "s"\n["lss"]\n', "line 3: 'lss' is not known. Known are config,"),
        ("[ls]\nworkers = 1\n", "line 2: 'workers' is not known. Known are expire-after, json, "),
        ('[ls]\nname = "n"\n', "line 2: 'name' is not known"),
        ("ls = 1\n", "line 1: 'ls' is a command: its options stand below [ls]"),
        ("ls.json = 1\n", "line 1: 'json' must be true or false"),
        ("[ls]\n'json' = 'yes'\n", "line 2: 'json' must be true or false"),
        ("storage-dir = true\n", "line 1: 'storage-dir' must be text or a number"),
        ("storage-dir = ['s']\n", "line 1: 'storage-dir' must be text or a number"),
        ("a b = 1\n", "is no TOML: "),
        ("json = \n", "line 1"),
        ("\xff", "is no TOML: "),
    ],
)
def test_what_the_file_cannot_say_is_refused_in_words(file: Path, text: str, words: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    shown = run("ls", code=78).stderr
    assert words in shown
    assert repr(str(file)) in shown
    # What is wrong can be looked up all the same.
    assert "Usage:" in run("ls", "--help").stdout


def test_a_list_is_one_of_texts(file: Path, storage: Path) -> None:
    FileStoreManager(storage).close()
    file.write_text('[check]\nignore = ["stored-missing", "nonsense"]\n')
    shown = run("check", "--storage-dir", storage, code=2).stderr
    assert "no finding is of the kind 'nonsense'" in shown
    file.write_text('[check]\nignore = "stored-missing"\n')
    assert "must be a list" in run("check", "--storage-dir", storage, code=78).stderr


def test_a_value_that_an_option_does_not_take_names_where_it_is_from(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ("put", __file__, "--storage-dir", "s")
    file.write_text("segment-size = 0\n")
    shown = run(*put, code=2).stderr
    assert f"Invalid value for 'segment-size' in {str(file)!r}: '0' is not between" in shown
    monkeypatch.setenv("TXSTORE_SEGMENT_SIZE", "1 parsec")
    assert "Invalid value for TXSTORE_SEGMENT_SIZE: '1 parsec' is no" in run(*put, code=2).stderr
    shown = run(*put, "--segment-size", "x", code=2).stderr
    assert "Invalid value for '--segment-size': 'x' is no size" in shown


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    shown = run("--config-file", tmp_path / "none", "ls", code=78).stderr
    assert "cannot read" in shown
    assert "No such file" in shown


def test_the_file_in_its_usual_place_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_file() is None
    (tmp_path / "txstore").mkdir()
    (tmp_path / "txstore" / "config.toml").write_text("no = 1")
    assert default_file() == str(tmp_path / "txstore" / "config.toml")
    monkeypatch.delenv("TXSTORE_CONFIG_FILE")
    assert "'no' is not known" in run("ls", code=78).stderr
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_file() is None
    (tmp_path / "txstore").rename(tmp_path / ".config")
    assert default_file() is None


def test_without_a_file_its_language_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a moment."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    monkeypatch.delenv("TXSTORE_CONFIG_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    assert "there is no store here" in run("ls", "--storage-dir", os.devnull + "x", code=1).stderr


# Which of two stores is meant


@pytest.mark.parametrize(
    ("variables", "arguments", "fabric"),
    [
        ({"STORAGE_DIR": "s"}, ["--config", "c"], True),
        ({"CONFIG": "c"}, ["--storage-dir", "s"], False),
        ({"CONFIG": "c"}, [], True),
        ({"STORAGE_DIR": "s", "TOPIC": "/t"}, [], False),
        ({"STORAGE_DIR": "s", "CONFIG": "c"}, [], None),
        ({}, ["--storage-dir", "s", "--config", "c"], None),
        ({"WORKING_DIR": "w", "TOPIC": "/t"}, [], None),
        ({"STORAGE_DIR": "s"}, ["--topic", "/t"], None),
    ],
    ids=str,
)
def test_what_is_said_in_the_stronger_way_tells_which_store_is_meant(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    fabric: bool | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"TXSTORE_{name}", value)
    command = txstore.get_command(click.Context(txstore), "cancel")
    assert command is not None
    with command.make_context("cancel", ["id", *arguments]) as ctx:
        if fabric is None:
            with pytest.raises(click.UsageError):
                is_on_fabric(ctx)
        else:
            assert is_on_fabric(ctx) == fabric
