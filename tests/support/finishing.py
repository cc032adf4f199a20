"""What workers that are killed finish: files that all go under one name."""

from __future__ import annotations

import random

from fleet import Log
from support import claim, message

from txstore import FileStoreManager

NAME = "the one"


def content(file_id: str) -> bytes:
    """A file that tells which it is and whether it is whole."""
    return file_id.encode().ljust(100) + random.Random(file_id).randbytes(20_000)


def finish_under_one_name(store: FileStoreManager, log: Log, rng: random.Random) -> None:
    """Files of one or two segments, each under the same name."""
    count = 0
    while not log.ended:
        count += 1
        file_id = f"{log.worker.replace('.', '-')}-{count}"
        data, first = content(file_id), rng.choice([0, 5_000])
        log.write("try", file_id, 1)
        if first:
            store.store_segment(message(data[:first], file_id=file_id, segment_number="1"))
        fields = {"file_id": file_id, "segment_number": "2" if first else "1"}
        last = message(data[first:], **fields, **claim(data, NAME))
        assert store.store_segment(last).file_result == "store"
        log.write("ack", file_id, 1)
