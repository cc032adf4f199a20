"""``txstore put``: what ends up in the storage, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_driver import KILL, after_ack, put, run, run_process, start

from txstore import FileStoreManager
from txstore.options import Level

KIB = 1024


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten segments of 1 KiB, the last one short."""
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(10 * KIB - 100))
    return path


def left_over(storage: Path) -> list[tuple[int, int]]:
    """Segments and bytes of each unfinished transfer."""
    with FileStoreManager(storage) as store:
        return [(t.segments_received, t.bytes_received) for t in store.transfers()]


def stored(storage: Path) -> dict[str, bytes]:
    """Every file that a reader of the storage sees."""
    return {
        path.relative_to(storage).as_posix(): path.read_bytes()
        for path in storage.rglob("*")
        if path.is_file() and not path.relative_to(storage).parts[0].startswith(".")
    }


# What is stored


def test_a_file_is_stored_under_its_base_name(source: Path, storage: Path) -> None:
    result = run(*put(source, storage))
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert re.fullmatch(
        r"stored source\.bin: 9\.9 KiB in \d+\.\d\d s \([\d.]+ \w+/s\)\n", result.stdout
    )
    assert left_over(storage) == []


def test_a_file_is_stored_by_a_real_process_with_the_default_options(
    source: Path, storage: Path, tmp_path: Path
) -> None:
    working = tmp_path / "working"
    run_process("put", source, "--storage-dir", storage, "--working-dir", working)
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert (working / "journal.db").is_file()
    assert not (storage / ".workdir").exists()


@pytest.mark.parametrize("level", ["segment", "file", "none"])
def test_every_durability_level_stores_the_file(source: Path, storage: Path, level: Level) -> None:
    run("put", source, "--storage-dir", storage, "--segment-size", "4KiB", "--durability", level)
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_an_empty_file_is_stored(tmp_path: Path, storage: Path) -> None:
    (tmp_path / "empty").touch()
    assert "stored empty: 0 B" in run(*put(tmp_path / "empty", storage)).stdout
    assert stored(storage) == {"empty": b""}


@pytest.mark.parametrize("size", [1, KIB - 1, KIB, KIB + 1, 2 * KIB])
def test_sizes_around_a_segment_are_stored_whole(tmp_path: Path, storage: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(os.urandom(size))
    run(*put(tmp_path / "f", storage))
    assert stored(storage) == {"f": (tmp_path / "f").read_bytes()}


def test_name_may_lead_into_subfolders(source: Path, storage: Path) -> None:
    run(*put(source, storage, "--name", "a/b/c.bin"))
    assert stored(storage) == {"a/b/c.bin": source.read_bytes()}


def test_a_name_with_a_slash_at_its_end_is_a_folder(
    tmp_path: Path, source: Path, storage: Path
) -> None:
    run(*put(source, storage, "--name", "new/folder/"))
    assert (storage / "new" / "folder" / source.name).read_bytes() == source.read_bytes()
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    run(*put(source, storage, other, "--name", "both/"))
    assert {path.name for path in (storage / "both").iterdir()} == {source.name, other.name}
    assert "outside" in run(*put(source, storage, "--name", "../"), code=1).stderr


def test_a_name_that_is_no_text_is_stored_or_refused_in_words(
    tmp_path: Path, storage: Path
) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\nname"))
    source.write_bytes(b"1")
    process = start(*put(source, storage))
    out, err = process.communicate()
    assert "Traceback" not in err
    assert process.returncode in (0, 1)
    assert r"bad\udcff\nname" in out + err


def test_several_files_are_stored_each_under_its_base_name(tmp_path: Path, storage: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
    result = run("put", *(tmp_path / n for n in ("one", "two", "three")), "--storage-dir", storage)
    assert stored(storage) == {"one": b"one", "two": b"two", "three": b"three"}
    *lines, summary = result.stdout.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"3 files: 3 stored, sent 11 B in [\d.]+ s \([\d.]+ \w+/s\)", summary)


def test_putting_an_unchanged_file_again_ends_with_that_file_in_the_storage(
    source: Path, storage: Path
) -> None:
    run(*put(source, storage))
    (storage / "source.bin").unlink()
    run(*put(source, storage))
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert left_over(storage) == []


@pytest.mark.parametrize("size", [10, 10 * KIB], ids=["one segment", "ten segments"])
def test_of_files_put_in_turn_under_one_name_the_last_put_wins(
    tmp_path: Path, storage: Path, size: int
) -> None:
    contents = {}
    for name in ("a", "b"):
        contents[name] = os.urandom(size)
        (tmp_path / name).write_bytes(contents[name])
    for name in ("a", "b", "a", "a", "b"):
        run(*put(tmp_path / name, storage, "--name", "target"))
        assert stored(storage) == {"target": contents[name]}
    assert left_over(storage) == []


# Going on after an interruption


def test_after_sigkill_the_same_command_goes_on_from_the_last_acked_segment(
    source: Path, storage: Path
) -> None:
    command = put(source, storage)
    run_process(*command, setup=after_ack(4, KILL), code=-signal.SIGKILL)
    assert left_over(storage) == [(4, 4 * KIB)]
    run_process(*command, setup=after_ack(3, KILL), code=-signal.SIGKILL)
    assert left_over(storage) == [(7, 7 * KIB)]
    result = run_process(*command)
    assert "resuming at 7.0 KiB of 9.9 KiB" in result.stderr
    assert "stored source.bin: 9.9 KiB (2.9 KiB of it now) in" in result.stdout
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert left_over(storage) == []


def test_a_process_killed_from_outside_at_any_moment_is_gone_on_from(
    tmp_path: Path, storage: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(2 * 1024 * KIB))
    process = start(*put(source, storage))
    assert process.stderr is not None
    for line in process.stderr:
        if "(10 %)" in line:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    [(segments, received)] = left_over(storage)
    assert segments >= 200
    assert received == segments * KIB
    assert (
        f"resuming at {received / KIB:.1f} KiB"
        in run(*put(source, storage, "--segment-size", "1MiB")).stderr
    )
    assert stored(storage) == {"large": source.read_bytes()}


def test_after_sigkill_behind_the_final_ack_the_same_command_finds_the_file_stored(
    source: Path, storage: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(10, KILL), code=-signal.SIGKILL)
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert run(*put(source, storage)).stdout == "already stored source.bin: 9.9 KiB\n"
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_it_goes_on_with_another_segment_size_and_from_another_folder(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    monkeypatch.chdir(source.parent)
    result = run(*put(Path(source.name), storage, "--segment-size", "700"))
    assert "resuming at 3.0 KiB" in result.stderr
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_it_goes_on_by_whatever_links_the_source_is_reached(
    source: Path, storage: Path, tmp_path: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    (tmp_path / "folder").symlink_to(source.parent)
    (tmp_path / "file").symlink_to(Path("folder") / source.name)
    result = run(*put(tmp_path / "file", storage, "--name", source.name))
    assert "resuming at 3.0 KiB" in result.stderr


def test_a_file_of_another_path_or_name_is_another_transfer(source: Path, storage: Path) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    assert "resuming" not in run(*put(source, storage, "--name", "other")).stderr
    twin = source.with_name("elsewhere")
    twin.write_bytes(source.read_bytes())
    assert "resuming" not in run(*put(twin, storage, "--name", "source.bin")).stderr
    assert left_over(storage) == [(3, 3 * KIB)]


def test_a_source_whose_beginning_changed_starts_over_and_says_so(
    source: Path, storage: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    source.write_bytes(os.urandom(5 * KIB))
    result = run(*put(source, storage))
    assert "starting over: the source has changed since the last run" in result.stderr
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert left_over(storage) == []


def test_a_source_that_grew_goes_on(source: Path, storage: Path) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    with source.open("ab") as file:
        file.write(b"more")
    assert "resuming at 3.0 KiB" in run(*put(source, storage)).stderr
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_a_source_cut_to_what_was_received_needs_only_the_final_message(
    source: Path, storage: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    os.truncate(source, 3 * KIB)
    assert "resuming at 3.0 KiB of 3.0 KiB" in run(*put(source, storage)).stderr
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_a_source_shorter_than_what_was_received_starts_over_and_says_so(
    source: Path, storage: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(3, KILL), code=-signal.SIGKILL)
    os.truncate(source, 2 * KIB)
    result = run(*put(source, storage))
    assert "starting over: the source is shorter" in result.stderr
    assert stored(storage) == {"source.bin": source.read_bytes()}


def test_ctrl_c_says_that_the_same_command_goes_on(source: Path, storage: Path) -> None:
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    result = run_process(*put(source, storage), setup=after_ack(4, interrupt), code=130)
    assert "the same command goes on from there" in result.stderr
    assert left_over(storage) == [(4, 4 * KIB)]
    assert "resuming at 4.0 KiB" in run(*put(source, storage)).stderr


def test_ctrl_c_twice_stops_at_once(source: Path, storage: Path) -> None:
    twice = "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)"
    run_process(*put(source, storage), setup=after_ack(4, twice), code=130)
    assert left_over(storage) == [(4, 4 * KIB)]


def test_ctrl_c_behind_the_final_ack_is_too_late_to_interrupt(source: Path, storage: Path) -> None:
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    result = run_process(*put(source, storage), setup=after_ack(10, interrupt))
    assert "stored source.bin" in result.stdout


# A source that is not what it should be


@pytest.mark.parametrize(
    "change",
    [
        "open({path!r}, 'ab').write(b'more')",
        "os.truncate({path!r}, 5000)",
        "os.utime({path!r}, (1, 1))",
    ],
    ids=["grown", "cut", "touched"],
)
def test_a_source_that_changes_while_it_is_read_is_not_stored(
    source: Path, storage: Path, change: str
) -> None:
    action = change.format(path=str(source))
    result = run_process(*put(source, storage), setup=after_ack(7, action), code=1)
    assert "was changed while it was being read, so nothing was stored" in result.stderr
    assert stored(storage) == {}
    run(*put(source, storage))
    assert stored(storage) == {"source.bin": source.read_bytes()}
    assert left_over(storage) == []


def test_a_missing_source_is_named_and_no_store_is_made_for_it(
    tmp_path: Path, storage: Path
) -> None:
    result = run(*put(tmp_path / "missing", storage), code=1)
    assert "missing" in result.stderr
    assert "No such file or directory" in result.stderr
    assert not storage.exists()


def test_a_folder_is_no_source(tmp_path: Path, storage: Path) -> None:
    assert "Is a directory" in run(*put(tmp_path, storage), code=1).stderr


def test_a_file_whose_size_does_not_count_its_bytes_is_not_stored_as_an_empty_one(
    storage: Path,
) -> None:
    result = run("put", "/proc/self/status", "--storage-dir", storage, code=1)
    assert "was changed while it was being read" in result.stderr
    assert stored(storage) == {}


def test_a_named_pipe_is_no_source_and_is_not_waited_for(tmp_path: Path, storage: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "Not a regular file" in run(*put(tmp_path / "pipe", storage), code=1).stderr


def test_the_other_files_are_stored_although_one_failed(tmp_path: Path, storage: Path) -> None:
    for name in ("one", "three"):
        (tmp_path / name).write_text(name)
    paths = [tmp_path / name for name in ("one", "two", "three")]
    result = run("put", *paths, "--storage-dir", storage, code=1)
    assert stored(storage) == {"one": b"one", "three": b"three"}
    assert "1 of 3 files were not stored" in result.stderr


# What is shown


def test_off_a_terminal_progress_is_plain_lines(source: Path, storage: Path) -> None:
    lines = run(*put(source, storage)).stderr.splitlines()
    assert lines[0] == "source.bin: putting 9.9 KiB"
    assert "source.bin: 5.0 KiB of 9.9 KiB (50 %)" in lines
    assert len(lines) <= 11


def test_a_file_of_one_segment_is_one_line(source: Path, storage: Path) -> None:
    shown = run(*put(source, storage, "--segment-size", "1MiB"))
    assert (shown.stdout.count("\n"), shown.stderr) == (1, "")


def test_progress_is_shown_while_what_an_earlier_run_left_is_compared(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("txstore.source._SLICE", 1000)
    run_process(*put(source, storage), setup=after_ack(8, KILL), code=-signal.SIGKILL)
    command = put(source, storage)
    lines = run(*command).stderr.splitlines()
    checking = [line for line in lines if "checking" in line]
    assert checking[0] == "source.bin: checking, 1000 B of 8.0 KiB (12 %)"
    assert len(checking) == 8
    assert lines.index(checking[-1]) < lines.index("source.bin: resuming at 8.0 KiB of 9.9 KiB")
    assert "source.bin: checking, 1000 B of 9.9 KiB (9 %)" in run(*command).stderr  # stored already


def test_quiet_prints_nothing_but_errors(source: Path, storage: Path) -> None:
    result = run(*put(source, storage, "--quiet"))
    assert result.output == ""
    assert run(*put(source.with_name("missing"), storage, "--quiet"), code=1).stderr != ""


def test_on_a_terminal_there_is_a_bar_with_bytes_and_rate(source: Path, storage: Path) -> None:
    run_process(*put(source, storage), setup=after_ack(4, KILL), code=-signal.SIGKILL)
    terminal, slave = pty.openpty()
    process = start(*put(source, storage), stderr=slave)
    os.close(slave)
    seen = b""
    # Reading a terminal whose other end is closed ends in EIO on Linux.
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
    except OSError:
        os.close(terminal)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert "stored source.bin" in out
    text = seen.decode()
    assert "resuming at 4.0 KiB of 9.9 KiB" in text
    assert "9.9/9.9 KiB" in text
    assert "/s" in text
    # A command that is killed could not bring the cursor back.
    assert "\x1b[?25l" not in text


# What stands in the way


def test_a_refused_name_is_refused_before_anything_is_sent(source: Path, storage: Path) -> None:
    result = run(*put(source, storage, "--name", "../outside"), code=1)
    assert "the name '../outside' is refused" in result.stderr
    assert "--name" in result.stderr
    assert left_over(storage) == []


def test_a_folder_under_the_name_is_refused_and_the_transfer_is_kept(
    source: Path, storage: Path
) -> None:
    (storage / "source.bin").mkdir(parents=True)
    assert "refused" in run(*put(source, storage), code=1).stderr
    (storage / "source.bin").rmdir()
    run(*put(source, storage))
    assert stored(storage) == {"source.bin": source.read_bytes()}


FULL = """
import errno
from txstore.store import FileStoreManager
store_segment = FileStoreManager.store_segment
def failing(self, message):
    if message.other_fields["segment_number"] == "5":
        raise OSError(errno.ENOSPC, "No space left on device", "/the/disk")
    return store_segment(self, message)
FileStoreManager.store_segment = failing
"""


def test_a_full_disk_says_what_to_do_and_the_same_command_goes_on(
    source: Path, storage: Path
) -> None:
    result = run_process(*put(source, storage), setup=FULL, code=1)
    assert "'/the/disk': No space left on device. The disk is full. Make room" in result.stderr
    assert "the same command goes on from there" in result.stderr
    assert "resuming at 4.0 KiB" in run(*put(source, storage)).stderr


def test_a_real_full_disk_is_gone_on_from_after_space_is_made(tmp_path: Path) -> None:
    source, storage = tmp_path / "source", tmp_path / "storage"
    source.write_bytes(os.urandom(40 * 1024 * KIB))
    storage.mkdir()
    command = """
        mount -t tmpfs -o size=64m tmpfs "$0" || exit 77
        dd if=/dev/zero of="$0/.ballast" bs=1M count=30 2>/dev/null
        "$@"; echo "first run: $?"
        rm "$0/.ballast"
        "$@"; echo "second run: $?"
        sha256sum < "$0/source"
    """
    arguments = [sys.executable, "-m", "txstore"]
    arguments += ["put", str(source), "--storage-dir", str(storage)]
    process = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, str(storage), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip(f"no tmpfs in a user namespace here: {process.stderr.strip()}")
    assert "first run: 1" in process.stdout, process.stderr
    assert "The disk is full" in process.stderr
    assert "second run: 0" in process.stdout, process.stderr
    assert "resuming at" in process.stderr
    assert hashlib.sha256(source.read_bytes()).hexdigest() in process.stdout
