"""A worker's process is stopped for longer than others wait, and goes on: it is fenced."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_servers import ENVIRONMENT, Cluster
from crew import Worker, wait_for
from support import outcome

from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.cluster.servers import Servers
from txstore.testing import Transfer

OLD = Transfer("file", (b"old, ", b"of two segments"), "old")
NEWER = Transfer("file", (b"newer",), "newer")


class StoppingServers(Servers):
    """Stops its process at the first request of a kind, before it or after."""

    def __init__(self, call: str, *, after: bool) -> None:
        self._call, self._after = call, after

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        stops = call == self._call and arguments["Key"].endswith("/file")
        if stops:
            self._call = ""
        if stops and not self._after:
            os.kill(os.getpid(), signal.SIGSTOP)
        answer = super().request(client, call, arguments)
        if stops and self._after:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "call", ["create_multipart_upload", "upload_part", "complete_multipart_upload"]
)
def test_a_stopped_worker_never_puts_its_file_over_a_newer_one(
    cluster: Cluster, call: str, after: bool
) -> None:
    disk = partial(StoppingServers, call, after=after)
    where = (cluster.storage_dir, cluster.working_dir)
    with (
        FileStoreManager(*where, lock_timeout=20) as other,
        Worker(*where, disk=disk, environ=ENVIRONMENT, lock_timeout=0.6) as worker,
    ):
        worker.store_segment(OLD.message(1))
        worker.ask("store_segment", OLD.message(2))
        wait_for(lambda: is_stopped(worker.pid))
        # PostgreSQL ends its turn after a third of the time that it would wait itself.
        answer = other.store_segment(OLD.message(2))
        assert answer.file_result == "store"
        assert cluster.files() == {"file": OLD.content}
        NEWER.send(other)
        os.kill(worker.pid, signal.SIGCONT)
        late = outcome(worker.answer)
        if not isinstance(late, OSError):
            assert isinstance(late, FileStoreSegmentResult)
            assert late.to_dict() == answer.to_dict()
        assert cluster.files() == {"file": NEWER.content}
        assert [one.file_id for one in other.events()] == ["old", "newer"]
        assert other.transfers() == []
