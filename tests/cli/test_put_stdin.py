"""``txstore put -``: standard input, which nobody can read twice."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_driver import KILL, after_ack, put, run, run_process, start

from txstore import FileStoreManager
from txstore.cli import stream
from txstore.protocol.request import Message

KIB = 1024
DATA = os.urandom(10 * KIB - 100)  # ten segments
Fed = Callable[[int], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Fed:
    """Has a descriptor be this process's standard input, as far as ``put`` can see."""

    def feed(descriptor: int) -> None:
        monkeypatch.setattr(stream, "_DESCRIPTOR", descriptor)
        monkeypatch.setattr(stream, "_PATH", f"/proc/self/fd/{descriptor}")

    return feed


def pipe_with(data: bytes) -> int:
    """One that has the data, and its end."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def opened(source: Path) -> Iterator[int]:
    descriptor = os.open(source, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def left_over(storage: Path) -> list[str]:
    with FileStoreManager(storage) as store:
        return [transfer.file_id for transfer in store.transfers()]


@pytest.mark.parametrize("size", [0, 1, KIB, KIB + 1, len(DATA)])
def test_what_comes_by_a_pipe_is_stored(stdin: Fed, storage: Path, size: int) -> None:
    stdin(pipe_with(DATA[:size]))
    shown = run(*put(Path("-"), storage, "--name", "a/b.bin"))
    assert (storage / "a" / "b.bin").read_bytes() == DATA[:size]
    assert shown.stdout.startswith("stored a/b.bin: ")
    assert left_over(storage) == []


def test_a_real_process_reads_its_standard_input(storage: Path) -> None:
    """However small the pieces in which it comes."""
    process = start(*put(Path("-"), storage, "--name", "n"), stdin=subprocess.PIPE)
    assert process.stdin is not None
    for at in range(0, 3000, 500):
        os.write(process.stdin.fileno(), DATA[at : at + 500])
    out, _ = process.communicate()
    assert (process.returncode, out.partition(" in ")[0]) == (0, "stored n: 2.9 KiB")
    assert (storage / "n").read_bytes() == DATA[:3000]


def test_a_regular_file_is_gone_on_with(
    stdin: Fed, storage: Path, source: Path, opened: int
) -> None:
    command = put(source, storage, "--name", "n")
    run_process(*command, setup=after_ack(4, KILL), code=-9)
    stdin(opened)
    assert "resuming at 4.0 KiB" in run(*put(Path("-"), storage, "--name", "n")).stderr
    assert (storage / "n").read_bytes() == DATA
    assert (storage / "n").stat().st_mtime_ns == source.stat().st_mtime_ns


def test_of_a_regular_file_what_was_read_before_is_left_out(
    stdin: Fed, storage: Path, opened: int
) -> None:
    os.lseek(opened, 3000, os.SEEK_SET)
    stdin(opened)
    run(*put(Path("-"), storage, "--name", "n"))
    assert (storage / "n").read_bytes() == DATA[3000:]


@pytest.mark.parametrize("descriptor", ["closed", "a folder"])
def test_input_that_cannot_be_read_is_an_error_in_words(
    stdin: Fed, storage: Path, tmp_path: Path, descriptor: str
) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    if descriptor == "closed":
        os.close(number)
    stdin(number)
    shown = run(*put(Path("-"), storage, "--name", "n"), code=1)
    assert "cannot read standard input" in shown.stderr
    assert not (storage / "n").exists()
    if descriptor != "closed":
        os.close(number)


# Where it fails nothing stays: nobody could go on with it


def test_after_ctrl_c_nothing_is_kept(storage: Path) -> None:
    """Also while nothing comes: the first one ends the wait."""
    interrupt = after_ack(2, "os.kill(os.getpid(), signal.SIGINT)")
    command = put(Path("-"), storage, "--name", "n")
    process = start(*command, setup=interrupt, stdin=subprocess.PIPE)
    assert process.stdin is not None
    os.write(process.stdin.fileno(), DATA[: 3 * KIB])
    process.wait()
    process.stdin.close()
    assert process.stderr is not None
    assert "Nothing of it is kept" in process.stderr.read()
    assert process.returncode == 130
    assert left_over(storage) == []


def test_an_end_that_comes_with_ctrl_c_is_not_that_of_the_file(
    stdin: Fed, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both programs of a pipe get it, and the one that writes ends first."""
    stdin(pipe_with(DATA[:3000]))
    read = os.read

    def last_read(descriptor: int, size: int) -> bytes:
        piece = read(descriptor, size)
        if not piece:
            os.kill(os.getpid(), 2)
        return piece

    monkeypatch.setattr(os, "read", last_read)
    shown = run(*put(Path("-"), storage, "--name", "n"), code=130)
    assert "Interrupted at -. Nothing of it is kept" in shown.stderr
    assert not (storage / "n").exists()
    assert left_over(storage) == []


@pytest.mark.parametrize("dropped", [True, False], ids=["room to drop it", "no room"])
def test_what_the_disk_did_not_take_is_dropped(
    stdin: Fed, storage: Path, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    store_segment = FileStoreManager.store_segment

    def failing(self: FileStoreManager, message: Message) -> object:
        if message.other_fields["segment_number"] == "5":
            raise OSError(errno.ENOSPC, "No space left on device", "/the/disk")
        return store_segment(self, message)

    def no_cancel(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(FileStoreManager, "store_segment", failing)
    if not dropped:
        monkeypatch.setattr(FileStoreManager, "cancel", no_cancel)
    stdin(pipe_with(DATA))
    shown = run(*put(Path("-"), storage, "--name", "n"), code=1)
    assert "The disk is full" in shown.stderr
    assert "Run the same command again" not in shown.stderr
    assert (left_over(storage) == []) == dropped


def test_a_transfer_that_somebody_cancels_ends_it(
    stdin: Fed, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segment = FileStoreManager.store_segment

    def cancelling(self: FileStoreManager, message: Message) -> object:
        if message.other_fields["segment_number"] == "5":
            self.cancel(message.other_fields["file_id"])
        return store_segment(self, message)

    monkeypatch.setattr(FileStoreManager, "store_segment", cancelling)
    stdin(pipe_with(DATA))
    assert "cancelled" in run(*put(Path("-"), storage, "--name", "n"), code=1).stderr
    assert not (storage / "n").exists()


@pytest.mark.parametrize("more", [[], ["f", "--name", "n/"], ["--name", "n/"], ["--name", ""]])
def test_it_goes_alone_and_with_a_name(storage: Path, more: list[str]) -> None:
    shown = run(*put(Path("-"), storage, *more), code=2).stderr
    assert "it goes alone, and with a --name" in shown or "is empty" in shown
    assert not storage.exists()
