"""``python -m benchmarks.cluster STORAGE_URL JOURNAL_URL``: a store over many hosts, beside what
its two servers take by themselves.

Both servers should have nothing else to do.  What it makes under the prefix and in the database is
left there.  Each ratio is of medians of rounds that take turns in one run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import boto3
import psycopg

from txstore import FileStoreManager
from txstore.cluster.addresses import read_bucket
from txstore.testing import Message, Transfer, segment

KIB, MIB = 1024, 1024**2


def main() -> int:
    options = _options()
    found: dict[str, Any] = {}
    for size in (50 * KIB, MIB):
        found[f"segment of {size // KIB} KiB"] = _segments(options, size)
        _show(found)
    found[f"file of {options.file_size} MiB"] = _file(options)
    _show(found)
    for workers in options.workers:
        found[f"{workers} workers"] = _together(options, workers)
        _show(found)
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("storage")
    parser.add_argument("journal")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--file-size", type=int, default=1024, help="MiB")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of workers")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--output", type=Path, metavar="FILE")
    return parser.parse_args()


def _show(found: dict[str, Any]) -> None:
    name, facts = list(found.items())[-1]
    print(f"{name:24}", ", ".join(f"{key} {value:.4g}" for key, value in facts.items()))


def _opened(options: argparse.Namespace) -> FileStoreManager:
    return FileStoreManager(options.storage, options.journal)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- one segment ---------------------------------------------------------------------------------


def _segments(options: argparse.Namespace, size: int) -> dict[str, float]:
    """A segment, and a bare transaction of the same statements on tables of the same kind."""
    data, file_id = os.urandom(size), uuid.uuid4().hex
    ours, bare = [], []
    with _opened(options) as store, psycopg.connect(options.journal) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare_tail (LIKE tail INCLUDING ALL)")
        connection.execute("CREATE TABLE IF NOT EXISTS bare_transfer (LIKE transfer INCLUDING ALL)")
        connection.execute(
            'INSERT INTO bare_transfer (file_id, change, segments, "offset", last_size, state,'
            " before, parts, staged) VALUES (%s, 0, 0, 0, 0, '', '', 0, 0)",
            (file_id,),
        )
        connection.commit()
        state = os.urandom(100)

        def transaction(number: int) -> None:
            connection.execute("SELECT set_config('lock_timeout', '30000', true)")
            row: Any = connection.execute(
                "SELECT * FROM bare_transfer WHERE file_id = %s FOR UPDATE", (file_id,)
            ).fetchone()
            connection.execute(
                'UPDATE bare_transfer SET segments = %s, "offset" = "offset" + %s, last_size = %s,'
                " state = %s, before = %s, change = change + 1, updated_at = clock_timestamp()"
                " WHERE id = %s",
                (number, size, size, state, state, row[0]),
            )
            connection.execute("INSERT INTO bare_tail VALUES (%s, %s, %s)", (row[0], number, data))
            connection.commit()

        part = max(8 * MIB // size, 1)
        for number in range(1, options.rounds + 1):
            message = segment(number, data, file_id)
            took = _seconds(lambda message=message: store.store_segment(message))  # type: ignore[misc]
            if number % part != 1:  # that one moves a part to the object store
                ours.append(took)
            bare.append(_seconds(lambda number=number: transaction(number)))  # type: ignore[misc]
        store.cancel(file_id)
        connection.execute("DELETE FROM bare_tail")
        connection.execute("DELETE FROM bare_transfer")
    return _compared(ours, bare)


def _compared(ours: list[float], bare: list[float]) -> dict[str, float]:
    one, other = statistics.median(ours), statistics.median(bare)
    return {"ms": one * 1000, "bare ms": other * 1000, "ratio": one / other}


# --- one file ------------------------------------------------------------------------------------


def _file(options: argparse.Namespace) -> dict[str, float]:
    """A file in segments of 8 MiB, and boto3's own upload of it, with its hash."""
    size, data = options.file_size * MIB, os.urandom(8 * MIB)
    bucket = read_bucket(options.storage)
    client = boto3.Session(profile_name=bucket.profile).client("s3", **bucket.client)
    ours, bare = [], []
    with _opened(options) as store, tempfile.NamedTemporaryFile() as file:
        for _ in range(size // len(data)):
            file.write(data)
        file.flush()

        def upload() -> None:
            hasher = hashlib.sha256()
            for _ in range(size // len(data)):
                hasher.update(data)
            client.upload_file(file.name, bucket.name, f"{bucket.prefix}bare")

        def put() -> None:
            file_id = uuid.uuid4().hex
            hasher, count = hashlib.sha256(), size // len(data)
            for number in range(1, count):
                hasher.update(data)
                store.store_segment(segment(number, data, file_id))
            hasher.update(data)
            last = segment(count, data, file_id)
            claim = {"name": "ours", "size": str(size), "hash_sha256": hasher.hexdigest()}
            fields = {**last.other_fields, **claim, "result": "store"}
            store.store_segment(Message(data, fields))

        for _ in range(3):
            bare.append(_seconds(upload))
            ours.append(_seconds(put))
    found = _compared(ours, bare)
    return {**found, "MiB/s": options.file_size / (found["ms"] / 1000)}


# --- workers -------------------------------------------------------------------------------------


def _together(options: argparse.Namespace, workers: int) -> dict[str, float]:
    """Processes that each send files of 16 segments of 50 KiB; and bare commits beside them."""
    facts = {}
    for name, work in (("files", _send_files), ("commits", _commit)):
        context = get_context("spawn")
        with context.Pool(workers) as pool:
            pool.map(time.sleep, [0.1] * workers)
            jobs = [(options.storage, options.journal, options.seconds)] * workers
            facts[name] = sum(pool.starmap(work, jobs, chunksize=1)) / options.seconds
    return {
        "segments/s": facts["files"] * 16,
        "files/s": facts["files"],
        "bare commits/s": facts["commits"],
    }


def _send_files(storage: str, journal: str, seconds: float) -> int:
    count, data = 0, os.urandom(50 * KIB)
    with FileStoreManager(storage, journal) as store:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            file_id = uuid.uuid4().hex
            for message in Transfer(file_id, (data,) * 16, file_id).messages():
                store.store_segment(message)
            count += 1
    return count


def _commit(_storage: str, journal: str, seconds: float) -> int:
    count, data, key = 0, os.urandom(50 * KIB), uuid.uuid4().int >> 66
    with psycopg.connect(journal) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.execute("INSERT INTO bare_tail VALUES (%s, %s, %s)", (key, count, data))
            connection.commit()
            count += 1
        connection.execute("DELETE FROM bare_tail WHERE transfer_id = %s", (key,))
    return count


if __name__ == "__main__":
    raise SystemExit(main())
