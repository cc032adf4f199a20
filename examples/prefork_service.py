"""A prefork service: the manager is made once, before the workers are forked.

Each worker takes whichever segment comes to it, of any transfer.  One of them is killed on the way:
the others resume after the last acknowledged segment.  Run it with::

    pip install txstore
    python prefork_service.py
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from txstore import FileStoreManager

WORKERS = 3
PARTS = [bytes([65 + n]) * 100_000 for n in range(10)]


def work(store: FileStoreManager, line: Connection) -> None:
    """A worker: answers until it is told to stop, with the manager that it inherited."""
    for message in iter(line.recv, None):
        line.send(store.store_segment(message).segments_received)


def main(storage_dir: Path) -> None:
    """Send one file's segments to the workers in turn."""
    store = FileStoreManager(storage_dir)
    context = multiprocessing.get_context("fork")
    lines, workers = [], []
    for _ in range(WORKERS):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(store, theirs), daemon=True)
        worker.start()
        lines.append(ours)
        workers.append(worker)

    data = b"".join(PARTS)
    for number, part in enumerate(PARTS, 1):
        if number == 5:  # a worker dies, as workers do
            os.kill(workers[0].pid or 0, signal.SIGKILL)
            workers[0].join()
            del lines[0], workers[0]
        fields = {"file_id": "report", "segment_number": number}
        if number == len(PARTS):
            sha256 = hashlib.sha256(data).hexdigest()
            fields |= {
                "result": "store",
                "name": "report.bin",
                "size": len(data),
                "hash_sha256": sha256,
            }
        line = lines[number % len(lines)]
        line.send(SimpleNamespace(payload=part, other_fields=fields))
        print("segment", line.recv(), "is acknowledged")

    for line in lines:
        line.send(None)
    for worker in workers:
        worker.join()
    store.close()
    assert (storage_dir / "report.bin").read_bytes() == data


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "storage"))
