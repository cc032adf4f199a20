"""How ``txstore`` ends when it is interrupted, or when nobody takes what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from cli_driver import after_ack, run, run_process, start

from txstore import FileStoreManager
from txstore.cli.problems import explain

CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"
PUT = ("--segment-size", "1KiB", "--durability", "none")


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Files of one, four and one segments."""
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for path, size in zip(paths, (10, 4000, 20), strict=True):
        path.write_bytes(os.urandom(size))
    return paths


def names_in(storage: Path) -> set[str]:
    return {path.name for path in storage.iterdir() if path.is_file()}


# Ctrl-C


def test_the_entry_point_is_cheap_to_import() -> None:
    code = "import sys, txstore.cli; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in process.stdout.split()}
    assert not loaded & {"sqlalchemy", "alembic", "filelock", "dxlclient", "click", "rich"}


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["ls", "--storage-dir"], "click"),
        (["ls", "--storage-dir"], "sqlalchemy"),
        (["put", __file__, "--storage-dir"], "sqlalchemy"),
        (["files", "--config"], "dxlclient"),
        (["serve"], "dxlclient"),
    ],
    ids=str,
)
def test_ctrl_c_while_the_command_is_loaded_ends_it_quietly(
    tmp_path: Path, command: list[str], module: str
) -> None:
    setup = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {CTRL_C}
sys.meta_path.insert(0, Finder())
"""
    result = run_process(*command, tmp_path, setup=setup, code=130)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize(
    ("command", "method"), [("ls", "transfers"), ("cancel", "status"), ("cancel", "close")]
)
def test_ctrl_c_ends_ls_and_cancel_with_code_130(storage: Path, command: str, method: str) -> None:
    FileStoreManager(storage).close()
    setup = f"""
import os, signal
from txstore.store import FileStoreManager
def interrupted(self, *args):
    {CTRL_C}
FileStoreManager.{method} = interrupted
"""
    arguments = ["some-id"] if command == "cancel" else []
    result = run_process(command, *arguments, "--storage-dir", storage, setup=setup, code=130)
    assert result.stderr.strip() == ""


def test_ctrl_c_reaches_a_command_that_a_test_starts_where_it_is_ignored(storage: Path) -> None:
    """As where the tests are run by ``nohup pytest &`` in a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        test_ctrl_c_ends_ls_and_cancel_with_code_130(storage, "ls", "transfers")
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_takes_effect_between_files_of_one_segment(
    sources: list[Path], storage: Path
) -> None:
    command = ["put", *sources, "--storage-dir", storage, *PUT]
    result = run_process(*command, setup=after_ack(1, CTRL_C), code=130)
    assert names_in(storage) == {"one"}
    assert "the same command goes on from there" in result.stderr
    run(*command)
    assert names_in(storage) == {"one", "two", "three"}


def test_the_first_ctrl_c_says_what_a_second_one_does(sources: list[Path], storage: Path) -> None:
    command = ["put", sources[1], "--storage-dir", storage, *PUT]
    result = run_process(*command, setup=after_ack(2, CTRL_C), code=130)
    _, said, then = result.stderr.partition(
        "Stopping after this step. Ctrl-C again stops at once.\n"
    )
    assert said
    assert "Interrupted" in then


WAITING = """
import os, signal
from txstore.errors import LockTimeoutError
from txstore.store import FileStoreManager
def waiting(self, *args, **options):
    for _ in range({times}):
        os.kill(os.getpid(), signal.SIGINT)
    raise LockTimeoutError("/the/lock", 30)
FileStoreManager.{method} = waiting
"""


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("method", ["store_segment", "transfers"])
def test_ctrl_c_while_put_waits_for_a_lock_ends_it_with_code_130(
    sources: list[Path], storage: Path, method: str, times: int
) -> None:
    setup = WAITING.format(method=method, times=times)
    command = ["put", sources[1], "--storage-dir", storage, *PUT]
    result = run_process(*command, setup=setup, code=130)
    assert "Ctrl-C again stops at once" in result.stderr
    # The second one is not kept waiting until the lock is had, or not.
    assert ("was not stored" in result.stderr) == (times == 1)


def test_ctrl_c_while_the_store_could_not_be_opened_ends_put_with_code_130(
    sources: list[Path], storage: Path
) -> None:
    setup = WAITING.format(method="__init__", times=1)
    run_process("put", *sources, "--storage-dir", storage, setup=setup, code=130)


# Output that nobody takes


def output_to(kind: str) -> int:
    """A descriptor that cannot be written to."""
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["full", "broken pipe"])
def test_put_stores_all_files_though_nothing_can_be_shown(
    sources: list[Path], storage: Path, kind: str, stream: str
) -> None:
    nowhere = output_to(kind)
    stdout, stderr = (nowhere, PIPE) if stream == "stdout" else (PIPE, nowhere)
    command = ["put", *sources, "--storage-dir", storage, *PUT]
    process = start(*command, stdout=stdout, stderr=stderr)
    os.close(nowhere)
    out, err = process.communicate()
    assert process.returncode == 0
    for said in (out or "", err or ""):
        assert "Traceback" not in said
        assert "was not stored" not in said
    assert names_in(storage) == {"one", "two", "three"}


def test_put_stores_all_files_though_it_was_started_without_any_output(
    sources: list[Path], storage: Path
) -> None:
    without = "import sys\nsys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None\n"
    command = ["put", *sources, "--storage-dir", storage, *PUT]
    run_process(*command, setup=without + after_ack(2, CTRL_C), code=130)
    run_process(*command, setup=without)
    assert names_in(storage) == {"one", "two", "three"}


def test_cancel_is_done_though_nothing_can_be_shown(sources: list[Path], storage: Path) -> None:
    command = ["put", sources[1], "--storage-dir", storage, *PUT]
    run_process(*command, setup=after_ack(2, CTRL_C), code=130)
    with FileStoreManager(storage) as store:
        [transfer] = store.transfers()
    nowhere = output_to("full")
    process = start("cancel", transfer.file_id, "--storage-dir", storage, stdout=nowhere)
    os.close(nowhere)
    assert (process.communicate()[1], process.returncode) == ("", 0)


@pytest.mark.parametrize("command", ["ls", "--help"])
def test_output_that_is_the_purpose_fails_in_one_line(storage: Path, command: str) -> None:
    FileStoreManager(storage).close()
    arguments = [command, "--storage-dir", storage] if command == "ls" else [command]
    nowhere = output_to("full")
    process = start(*arguments, stdout=nowhere)
    os.close(nowhere)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == "Error: cannot write to standard output: No space left on device.\n"


def test_a_reader_that_has_enough_is_no_reason_to_say_anything(storage: Path) -> None:
    FileStoreManager(storage).close()
    nowhere = output_to("broken pipe")
    process = start("ls", "--storage-dir", storage, stdout=nowhere)
    os.close(nowhere)
    assert (process.communicate()[1], process.returncode) == ("", 1)


# Other things that end a command


def test_too_large_segments_for_the_memory_are_an_error_in_words(
    sources: list[Path], storage: Path
) -> None:
    setup = """
from txstore.source import Source
def read(self, offset, length):
    raise MemoryError
Source.read = read
"""
    result = run_process("put", sources[0], "--storage-dir", storage, setup=setup, code=1)
    assert "Choose a smaller --segment-size" in result.stderr
    assert "\n" not in explain(MemoryError())


def test_a_folder_that_is_removed_meanwhile_is_an_error_in_words_only(
    sources: list[Path], storage: Path
) -> None:
    remove = f"import shutil; shutil.rmtree({str(storage)!r})"
    command = ["put", sources[1], "--storage-dir", storage, *PUT, "--quiet"]
    result = run_process(*command, setup=after_ack(2, remove), code=1)
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["Error"]


def test_what_the_store_logs_is_not_printed_raw(sources: list[Path], storage: Path) -> None:
    log = "import logging; logging.getLogger('txstore.journal').warning('raw')"
    command = ["put", sources[1], "--storage-dir", storage, *PUT, "--quiet"]
    assert run_process(*command, setup=after_ack(2, log)).stderr == ""


def test_sigint_that_is_ignored_stays_ignored(sources: list[Path], storage: Path) -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    setup = ignored + after_ack(2, CTRL_C)
    run_process("put", *sources, "--storage-dir", storage, *PUT, setup=setup)
    assert names_in(storage) == {"one", "two", "three"}
