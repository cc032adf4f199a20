"""What a store over many hosts tells of its work."""

from __future__ import annotations

from collections import Counter

from cluster_servers import Cluster
from crew import segment

from txstore import FileStoreManager
from txstore.metrics import Step

DATA = bytes(range(256)) * 4


class Steps:
    """Takes down which steps were told."""

    def __init__(self) -> None:
        self.told: Counter[Step] = Counter()
        self.outcomes: list[str] = []

    def answered(self, outcome: str, size: int, _seconds: float) -> None:
        self.outcomes.append(f"{outcome} {size}")

    def failed(self, error: BaseException, _seconds: float) -> None:
        self.outcomes.append(type(error).__name__)

    def took(self, step: Step, seconds: float) -> None:
        assert seconds >= 0
        self.told[step] += 1


def test_steps_and_totals_are_told(cluster: Cluster) -> None:
    steps = Steps()
    with FileStoreManager(cluster.storage_dir, cluster.working_dir, metrics=steps) as store:
        assert (store.totals().transfers, store.totals().oldest_age) == (0, 0)
        steps.told.clear()
        store.store_segment(segment("open", 1, DATA))
        assert steps.outcomes == ["segment 1024"]
        assert steps.told["flush"] == 1, "one commit is one durable answer"
        assert steps.told["journal"] >= 1
        totals = store.totals()
    assert (totals.transfers, totals.bytes, totals.events_behind) == (1, len(DATA), 0)
    assert totals.oldest_age > 0
    assert totals.free is None
