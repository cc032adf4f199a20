"""What it costs to take up a transfer does not grow with what was received of it: strace tells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crew import apart, segment
from support import FULL, at_each_level

from txstore import FileStoreManager
from txstore.digest import BACKEND
from txstore.options import Level

needs_saved_hash = pytest.mark.skipif(
    BACKEND != "openssl", reason="without OpenSSL the hash cannot be saved, and is made anew"
)

SEGMENTS = 10
MEGABYTE = 1_000_000

#: Takes up the transfer and stores one segment more, telling strace where that begins and ends.
TAKE_UP = f"""
import os, sys
from txstore import FileStoreManager
class Message:
    payload = b"x" * 1000
    other_fields = {{"file_id": "one", "segment_number": "{SEGMENTS + 1}"}}
os.write(2, b"begin")
store = FileStoreManager(sys.argv[1], durability=sys.argv[2])
answer = store.store_segment(Message)
os.write(2, b"acked")
assert answer.segments_received == {SEGMENTS + 1}
os._exit(0)
"""

#: What the interpreter does for itself.
OF_PYTHON = re.compile(r"(brk|mmap|munmap|mprotect|madvise|mremap|futex|rt_sig\w+|getrandom)\(")
READS = re.compile(r"\b(read|pread64|readv|preadv2?|mmap|sendfile|copy_file_range|splice)\(")


@pytest.fixture
def strace() -> str:
    """The command, if it is there and may trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("there is no strace command")
    done = subprocess.run([found, "-qq", "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    return found


def receive(storage: Path, size: int, level: Level) -> None:
    """Receive so many bytes, in a process that then ends without closing anything."""
    store = FileStoreManager(storage, durability=level)
    for number in range(1, SEGMENTS + 1):
        store.store_segment(segment("one", number, bytes(size // SEGMENTS)))
    [found] = store.transfers()
    assert found.bytes_received == size


def trace(strace: str, storage: Path, level: Level, output: Path) -> list[str]:
    """The system calls of a process of its own from opening the store to the first answer."""
    command = [sys.executable, "-c", TAKE_UP, str(storage), level]
    # Else the order of sets, and with it Python's own calls, differs from run to run.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    subprocess.run(
        [strace, "-f", "-y", "-s", "32", "-o", output, *command],
        check=True,
        capture_output=True,
        env=environment,
    )
    text = output.read_text(errors="replace")
    _, begun, rest = text.partition('"begin"')
    calls, acked, _ = rest.partition('"acked"')
    assert begun
    assert acked
    lines = [line.partition(" ")[2].strip() for line in calls.splitlines()[1:]]
    return [line for line in lines if not OF_PYTHON.match(line)]


def names_of(calls: list[str]) -> list[str]:
    """Looks at names are left out: a folder that did not change for a moment saves some, whatever
    the size."""
    return [call.partition("(")[0] for call in calls if not call.startswith("newfstatat(")]


@needs_saved_hash
@pytest.mark.parametrize("level", ["none", "segment"] if FULL else ["none"])
def test_taking_up_290_megabytes_costs_what_3_megabytes_cost(
    tmp_path: Path, strace: str, level: Level
) -> None:
    calls = {}
    for size in (3, 290):
        storage = tmp_path / str(size)
        apart(receive, storage, size * MEGABYTE, level)
        calls[size] = trace(strace, storage, level, tmp_path / f"{size}.trace")
        of_staging = [call for call in calls[size] if "/staging/w" in call]
        assert any(call.startswith("pwrite64(") for call in of_staging), "nothing was staged"
        assert [call for call in of_staging if READS.match(call)] == []
    assert len(calls[3]) > 50
    assert names_of(calls[290]) == names_of(calls[3])


@needs_saved_hash
@at_each_level
def test_no_staged_byte_is_read_but_what_may_not_be_flushed(
    tmp_path: Path, strace: str, level: Level
) -> None:
    """Taken up at the level at which it was received.  At level "segment" the worker before may
    have died in the flush of its last segment: that one is read, and written anew."""
    apart(receive, tmp_path, MEGABYTE, level)
    calls = trace(strace, tmp_path, level, tmp_path / "trace")
    of_staging = [call for call in calls if "/staging/w" in call]
    assert any(call.startswith("pwrite64(") for call in of_staging), "nothing was staged"
    assert [call for call in of_staging if READS.match(call)] == []
