"""``txstore put`` once more: what is stored already is not sent again, and ids can be read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli_driver import KILL, after_ack, put, run, run_process

from txstore import FileStoreManager
from txstore.cli.put import transfer_prefix
from txstore.disk import Disk
from txstore.protocol.request import require_file_id

SIZE = 4000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four segments of 1 KiB, the last one short."""
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_of_several_files_those_that_are_stored_are_not_sent_again(
    tmp_path: Path, storage: Path
) -> None:
    sources = [tmp_path / name for name in ("a", "b", "c")]
    for path in sources:
        path.write_bytes(os.urandom(SIZE))
    command = put(sources[0], storage, *sources[1:])
    run_process(*command, setup=after_ack(10, KILL), code=-signal.SIGKILL)
    placed = [(storage / name).stat().st_ino for name in ("a", "b")]
    result = run(*command)
    assert result.stdout.splitlines()[:2] == [
        "already stored a: 3.9 KiB",
        "already stored b: 3.9 KiB",
    ]
    assert "c: resuming at 2.0 KiB" in result.stderr
    assert [(storage / name).stat().st_ino for name in ("a", "b")] == placed
    assert (storage / "c").read_bytes() == sources[2].read_bytes()


@pytest.mark.parametrize("size", [0, 10, SIZE])
def test_files_of_any_size_are_known_again(source: Path, storage: Path, size: int) -> None:
    os.truncate(source, size)
    run(*put(source, storage))
    assert "already stored" in run(*put(source, storage)).stdout


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_a_source_that_differs_is_sent(source: Path, storage: Path, size: int) -> None:
    run(*put(source, storage))
    source.write_bytes(os.urandom(size))
    assert run(*put(source, storage)).stdout.startswith("stored source.bin")
    assert (storage / "source.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("how", ["written to", "replaced", "removed", "a link"])
def test_a_stored_file_that_is_not_as_it_was_published_is_sent_again(
    source: Path, storage: Path, how: str
) -> None:
    run(*put(source, storage))
    stored = storage / "source.bin"
    match how:
        case "written to":
            stored.write_bytes(bytes(SIZE))
        case "replaced":
            # Were times all that is compared, this would pass for the file that was published.
            found = stored.stat()
            (storage / "other").write_bytes(bytes(SIZE))
            os.utime(storage / "other", ns=(found.st_atime_ns, found.st_mtime_ns))
            (storage / "other").replace(stored)
        case "removed":
            stored.unlink()
        case "a link":
            stored.rename(storage / "other")
            stored.symlink_to("other")
    assert run(*put(source, storage)).stdout.startswith("stored source.bin")
    assert stored.read_bytes() == source.read_bytes()
    assert not stored.is_symlink()


def test_a_file_that_a_power_loss_may_take_is_sent_again_where_more_is_asked_for(
    source: Path, storage: Path
) -> None:
    run(*put(source, storage, "--durability", "none"))
    assert run(*put(source, storage, "--durability", "file")).stdout.startswith("stored")
    for level in ("segment", "file", "none"):
        assert run(*put(source, storage, "--durability", level)).stdout.startswith("already stored")


def test_a_file_that_a_power_loss_may_have_taken_is_sent_again(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boot(name: str) -> None:
        monkeypatch.setattr(Disk, "boot_id", lambda _disk: name)

    boot("before the power loss")
    run(*put(source, storage, "--durability", "none"))
    boot("after it")
    assert run(*put(source, storage, "--durability", "none")).stdout.startswith("stored")
    assert run(*put(source, storage, "--durability", "file")).stdout.startswith("stored")
    boot("after another one")
    assert run(*put(source, storage, "--durability", "segment")).stdout.startswith("already stored")


def test_what_is_left_of_other_content_is_dropped_where_the_file_is_stored(
    source: Path, storage: Path
) -> None:
    content, modified = source.read_bytes(), source.stat().st_mtime_ns
    run(*put(source, storage))
    source.write_bytes(os.urandom(SIZE))
    command = put(source, storage)
    run_process(*command, setup=after_ack(2, KILL), code=-signal.SIGKILL)
    source.write_bytes(content)
    os.utime(source, ns=(modified, modified))
    assert "already stored" in run(*command).stdout
    with FileStoreManager(storage) as store:
        assert store.transfers() == []


# Ids


def test_ls_shows_which_file_a_transfer_is_of(source: Path, storage: Path) -> None:
    run_process(*put(source, storage), setup=after_ack(2, KILL), code=-signal.SIGKILL)
    row = run("ls", "--storage-dir", storage).stdout.splitlines()[1]
    assert row.startswith("put-source-bin-")


@pytest.mark.parametrize(
    "name",
    [
        "a/b c/d.tar.gz",
        "...",
        "-",
        "back\\slash",
        "\x1b[31mred\n",
        "größe €😀",
        "n" * 255,
        "ü" * 127,
        os.fsdecode(b"bad\xff"),
    ],
)
def test_every_name_gives_an_id_that_is_allowed(name: str) -> None:
    prefix = transfer_prefix(name, "/source")
    assert transfer_prefix(name, "/source") == prefix
    require_file_id(prefix + "12345678")
    assert prefix.isprintable()
    assert not set(prefix) & set(" '\"$*?;&|<>()")
    assert prefix != transfer_prefix(name, "/other")
    assert prefix != transfer_prefix(name + "x", "/source")
