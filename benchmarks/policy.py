"""``python -m benchmarks.policy``: what events, the catalogue, limits and ``on_exists`` cost in
processor time.

The same files go into several stores in turn: one that keeps neither events nor a catalogue, and
others, each with something more.  Two forget what they answered soon, one of them without a
catalogue: the other keeps a row of each file instead.  Processor time of the process, the kernel's
with it, so that neither the disk nor what else runs counts much.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from txstore import FileStoreManager
from txstore.limits import Limits
from txstore.local.journal import records
from txstore.local.journal.journal import Journal

KIB = 1024
#: Files whose mean is taken.
_IN_A_ROW = 64
#: The stores: what each is opened with.
STORES: dict[str, dict[str, Any]] = {
    "bare": {"catalogue": False},
    "events": {"catalogue": False},
    "events, catalogue": {},
    "events, forgotten": {"catalogue": False, "keep_completed": 10.0},
    "events, rows": {"keep_completed": 10.0},
    "max_file_size": {"limits": Limits(max_file_size=2**40)},
    "max_transfers": {"limits": Limits(max_transfers=10_000)},
    "max_unfinished_bytes": {"limits": Limits(max_unfinished_bytes=2**40)},
    "min_free": {"limits": Limits(min_free=1024)},
    "on_exists": {"on_exists": "refuse"},
}
#: Files, as segments of so many bytes.
FILES = {
    "10 KiB in one segment": [10 * KIB],
    "1 MiB in segments of 50 KiB": [50 * KIB] * 20 + [24 * KIB],
    "8 MiB in segments of 1 MiB": [1024 * KIB] * 8,
}


@contextmanager
def recorded(*, events: bool) -> Iterator[None]:
    """What is recorded meanwhile has its events, or has none."""
    write, has_consumers = Journal.write, records.Records.has_consumers
    left_out = None if events else records._RECORD_EVENT

    # The same detour for all stores.
    def write_less(self: Journal, deadline: Any, *writes: Any, **options: Any) -> bool:
        kept = [one for one in writes if one.statement is not left_out]
        return write(self, deadline, *kept, **options)

    def follows(self: records.Records, deadline: Any) -> bool:
        return events and has_consumers(self, deadline)

    with (
        mock.patch.object(Journal, "write", write_less),
        mock.patch.object(records.Records, "has_consumers", follows),
    ):
        yield


def send(store: FileStoreManager, name: str, parts: list[bytes], whole: dict[str, str]) -> float:
    """Store a file; the processor time of its plain segments but the first, of one."""
    plain = 0.0
    for number, payload in enumerate(parts, 1):
        fields = {"file_id": name, "segment_number": str(number)}
        if number == len(parts):
            fields |= {**whole, "name": name, "result": "store"}
        begun = time.process_time()
        store.store_segment(SimpleNamespace(payload=payload, other_fields=fields))
        if 1 < number < len(parts):
            plain += time.process_time() - begun
    return plain / max(len(parts) - 2, 1)


def measure(folder: Path, level: Any, sizes: list[int], rounds: int) -> dict[str, list[float]]:
    """By store: seconds of a file, and of a plain segment of it.

    Each is the median of the means of some files in a row: what is cleaned up after one of them is
    of all.
    """
    parts = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    data = b"".join(parts)
    whole = {"size": str(len(data)), "hash_sha256": hashlib.sha256(data).hexdigest()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STORES}
    names = list(STORES)
    with ExitStack() as opened:
        stores = {
            name: opened.enter_context(FileStoreManager(folder / name, durability=level, **options))
            for name, options in STORES.items()
        }
        gc.disable()
        for turn in range(rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                with recorded(events=name != "bare"):
                    begun = time.process_time()
                    plain = send(stores[name], f"file{turn}", parts, whole)
                    spent = time.process_time() - begun
                if turn >= rounds // 10:  # the first warm up
                    found[name].append((spent, plain))
                if len(data) > 64 * KIB:  # what is taken away at once gets no row
                    Path(stores[name].storage_dir, f"file{turn}").unlink()
        gc.enable()
    return {
        name: [_typical(one) for one in zip(*spent, strict=True)] for name, spent in found.items()
    }


def _typical(spent: Sequence[float]) -> float:
    means = [statistics.fmean(spent[i : i + _IN_A_ROW]) for i in range(0, len(spent), _IN_A_ROW)]
    return statistics.median(means)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    print("More processor time than without them, for a stored file and for a plain segment")
    for level in ("segment", "file", "none"):
        for title, sizes in FILES.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                found = measure(Path(folder), level, sizes, options.rounds)
            bare, plain = found.pop("bare")
            print(f"{level}, {title}: {1e6 * bare:.0f} us", flush=True)
            for name, (whole, segment) in found.items():
                more = "" if len(sizes) < 3 else f"{100 * (segment / plain - 1):+9.1f}%"
                print(f"    {name:22}{100 * (whole / bare - 1):+8.1f}%{more}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
