"""What workers that are killed send: the segments of transfers that all of them share."""

from __future__ import annotations

import random
from collections import defaultdict

from fleet import Line, Log
from support import claim, message, published, sha256, staged

from txstore import FileStoreManager
from txstore.errors import SequenceError

TRANSFERS = 12
SIZE = 200


def segment(file_id: str, number: int, sender: str) -> bytes:
    """What a sender sends: no two send the same."""
    return f"{file_id} {number} {sender} ".encode().ljust(SIZE, b".")


def push(store: FileStoreManager, log: Log, rng: random.Random) -> None:
    """Send the next segment of any transfer, as far as one knows; now and then the last again."""
    expected: dict[str, int] = {}
    last: dict[str, bytes] = {}
    while not log.ended:
        file_id = f"t{rng.randrange(TRANSFERS)}"
        number = expected.get(file_id, 1)
        again = file_id in last and rng.random() < 0.15
        number -= again
        payload = last[file_id] if again else segment(file_id, number, log.worker)
        sent = message(payload, file_id=file_id, segment_number=str(number))
        try:
            log.write("try", file_id, number, payload)
            answer = store.store_segment(sent)
        except SequenceError as error:
            log.write("no", file_id, number)
            expected[file_id] = error.expected or 1
            last.pop(file_id, None)
            continue
        log.write("ack", file_id, number, payload)
        assert (answer.file_id, answer.segments_received) == (file_id, number)
        expected[file_id], last[file_id] = number + 1, payload


def check_transfers(store: FileStoreManager, lines: list[Line]) -> None:
    """What was acknowledged is there, once, and can be built on."""
    acked: dict[str, dict[int, bytes]] = defaultdict(dict)
    tried: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for line in lines:
        if line.kind == "try":
            tried[line.what, line.number].add(line.payload)
        elif line.kind == "ack":
            first = acked[line.what].setdefault(line.number, line.payload)
            assert first == line.payload, f"{line.what}: {line.number} acknowledged twice"
    for file_id, segments in acked.items():
        status = store.status(file_id)
        assert status is not None, f"{file_id} is lost"
        count = status.segments_received
        assert count >= max(segments), f"{file_id}: lost acknowledged segments"
        whole = [data[: count * SIZE] for data in staged(store)]
        (data,) = {one for one in whole if sha256(one) == status.sha256}
        for number in range(1, count + 1):
            found = data[(number - 1) * SIZE : number * SIZE]
            assert found == segments.get(number, found), f"{file_id}: {number} is another's"
            assert found in tried[file_id, number], f"{file_id}: {number} was never sent"
        last = message(file_id=file_id, segment_number=str(count + 1), **claim(data, file_id))
        assert store.store_segment(last).file_result == "store"
        assert published(store)[file_id] == data
