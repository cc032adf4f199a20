"""Many uploads at once in asyncio: each call of the store runs in one of a few threads.

Threads share what they wait for: of several that make their segments durable at the same time, one
flushes the journal for all.  Run it with::

    pip install txstore
    python asyncio_threads.py
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

from txstore.aio import FileStoreManager

SEGMENT = 256 * 1024


async def upload(store: FileStoreManager, name: str, data: bytes) -> None:
    """Send a file's segments one after the other; other files go on meanwhile."""
    last = max(1, -(-len(data) // SEGMENT))
    for number in range(1, last + 1):
        fields = {"file_id": name, "segment_number": number}
        if number == last:
            sha256 = hashlib.sha256(data).hexdigest()
            fields |= {"result": "store", "name": name, "size": len(data), "hash_sha256": sha256}
        part = data[(number - 1) * SEGMENT : number * SEGMENT]
        message = SimpleNamespace(payload=part, other_fields=fields)
        # A task that is cancelled here waits until the segment is taken, or is not.  Whoever sends
        # it again gets the same answer.
        await store.store_segment(message)


async def main(storage_dir: Path) -> None:
    """Store eight files at once."""
    async with FileStoreManager(storage_dir, threads=4) as store:
        files = {f"file-{n}": bytes([n]) * (n * 200_000) for n in range(8)}
        await asyncio.gather(*(upload(store, name, data) for name, data in files.items()))
    print(*sorted(path.name for path in storage_dir.glob("file-*")), sep="\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "storage")))
