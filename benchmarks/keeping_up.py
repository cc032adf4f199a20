"""``python -m benchmarks.keeping_up``: does housekeeping keep up with a given rate of work?

One-segment files at level ``none``, as many a second as asked for, with completions kept for some
seconds only.  Once a second: how many completions there are, and what the slowest answer took.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

from txstore import FileStoreManager

DATA = b"a small file"
FIELDS = {
    "segment_number": "1",
    "result": "store",
    "size": str(len(DATA)),
    "hash_sha256": hashlib.sha256(DATA).hexdigest(),
}


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        most = run(Path(folder), options.rate, options.seconds, options.kept)
    bound = int(options.rate * options.kept * 1.5)
    print(f"At most {most:,} completions; {bound:,} would be half as much again as it must be.")
    return 0 if most <= bound else 1


def run(folder: Path, rate: int, seconds: int, kept: float) -> int:
    """Store files at a rate; how many completions there were at most, whenever it was looked."""
    most = sent = 0
    slowest = 0.0
    with FileStoreManager(folder, durability="none", keep_completed=kept) as store:
        begun = time.monotonic()
        for second in range(1, seconds + 1):
            while sent < second * rate and (now := time.monotonic()) < begun + second:
                if (ahead := begun + sent / rate - now) > 0:
                    time.sleep(ahead)
                fields = {**FIELDS, "file_id": f"id-{sent}", "name": f"file-{sent % 1000}"}
                asked = time.monotonic()
                store.store_segment(SimpleNamespace(payload=DATA, other_fields=fields))
                slowest = max(slowest, time.monotonic() - asked)
                sent += 1
            there = _completions(store.working_dir)
            most = max(most, there)
            print(
                f"{second:4} s {sent:9,} files {there:9,} completions"
                f" {1000 * slowest:8.1f} ms the slowest answer",
                flush=True,
            )
            slowest = 0.0
    print(f"{sent / (time.monotonic() - begun):,.0f} files a second")
    return most


def _completions(working_dir: str) -> int:
    """Counted by another process: closing a descriptor of the journal here would drop the locks
    that SQLite has on it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal = Path(working_dir, "journal.db").as_uri() + "?mode=ro"
            with closing(sqlite3.connect(journal, uri=True)) as connection:
                [(count,)] = connection.execute("SELECT count(*) FROM completion")
            os.write(write, str(count).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="ascii") as answer:
        count = int(answer.read())
    os.waitpid(child, 0)
    return int(count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keeping_up", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rate", type=int, default=1000, help="files a second; default 1000")
    parser.add_argument("--seconds", type=int, default=60, help="how long; default a minute")
    parser.add_argument("--kept", type=float, default=5.0, help="keep_completed; default 5 s")
    parser.add_argument("--folder", type=Path, help="where to work")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
