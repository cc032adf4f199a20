"""Our sender to upstream's unmodified request handler, which can neither resume nor repeat."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dxlclient.callbacks import RequestCallback
from dxlclient.service import ServiceRegistrationInfo
from fabric_broker import PATIENCE, Broker, MakeFile

from txstore.dxl import FileChangedError, FileSender, GaveUpError, Link, RemoteError, SendProgress
from txstore.dxl.protocol import SERVICE_TYPE, STORE_TOPIC

SEGMENT = 16 * 1024


def _upstreams_handlers() -> Any:
    """The module with upstream's request handler, without the rest of its package.

    Importing the package would import ``pkg_resources``, which newer Pythons have not.
    """
    name = "dxlfiletransferservice.requesthandlers"
    for folder in sys.path:
        path = Path(folder) / "dxlfiletransferservice" / "requesthandlers.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    reason = "dxlfiletransferservice is not installed (pip install dxlfiletransferservice==0.1.1)"
    if os.environ.get("TXSTORE_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class _Watch(RequestCallback):  # type: ignore[misc]
    def __init__(self, watch: Callable[[Any], None]) -> None:
        super().__init__()
        self.on_request = watch


class Upstream:
    """Upstream's service, as far as it answers requests."""

    def __init__(self, client: Any, storage: Path) -> None:
        handlers = _upstreams_handlers()
        self._new: Callable[[], Any] = partial(
            handlers.FileStoreRequestCallback, client, str(storage)
        )
        self._handler = self._new()
        self.requests: list[dict[str, str]] = []
        info = ServiceRegistrationInfo(client, SERVICE_TYPE)
        info.add_topic(STORE_TOPIC, _Watch(self._on))
        client.register_service_sync(info, 10)
        self._info = info
        self.restart_before: int | None = None

    def _on(self, request: Any) -> None:
        self.requests.append(dict(request.other_fields))
        if request.other_fields.get("segment_number") == str(self.restart_before):
            self.restart_before = None
            self._handler = self._new()
        self._handler.on_request(request)


@pytest.fixture
def upstream(broker: Broker, tmp_path: Path, storage: Path) -> Iterator[Upstream]:
    folder = broker.config_dir(tmp_path / "upstream")
    with broker.client(folder) as client:
        yield Upstream(client, storage)


def test_sends_without_resuming_and_says_so(
    upstream: Upstream, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    notices: list[str] = []
    asked = 1  # one request finds out what the service is
    with Link(client_dir, answer_timeout=1.0, retry_for=30.0, notice=notices.append) as link:
        sender = FileSender(link, segment_size=SEGMENT)
        for size in (0, 1, SEGMENT, 3 * SEGMENT + 5):
            path = make_file(size)
            sent = sender.send(path, "sub/stored.bin")
            assert (storage / "sub/stored.bin").read_bytes() == path.read_bytes()
            assert sent.segments == max(-(-size // SEGMENT), 1)
            asked += sent.segments
    assert len([notice for notice in notices if "cannot resume" in notice]) == 1
    assert len(upstream.requests) == asked


def test_begins_anew_when_the_service_forgot(
    upstream: Upstream, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(5 * SEGMENT)
    upstream.restart_before = 3
    with Link(client_dir, answer_timeout=1.0, retry_for=30.0) as link:
        FileSender(link, segment_size=SEGMENT).send(path)
    assert (storage / path.name).read_bytes() == path.read_bytes()
    cancels = [request for request in upstream.requests if request.get("result") == "cancel"]
    assert len(cancels) == 2, "the probe, and what was left of the first try"
    assert list((storage / ".workdir").iterdir()) == []


def test_a_refusal_is_said_at_once(
    upstream: Upstream, client_dir: Path, make_file: MakeFile
) -> None:
    with (
        Link(client_dir, answer_timeout=1.0, retry_for=PATIENCE) as link,
        pytest.raises(RemoteError, match="outside of storage"),
    ):
        FileSender(link, segment_size=SEGMENT).send(make_file(3 * SEGMENT), "../out")
    sent = [request for request in upstream.requests if request.get("result") != "cancel"]
    assert [request["segment_number"] for request in sent] == ["1"]


def test_what_is_refused_at_its_end_is_not_sent_for_ever(
    upstream: Upstream, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(3 * SEGMENT)
    (storage / path.name).mkdir()
    with (
        Link(client_dir, answer_timeout=1.0, retry_for=PATIENCE) as link,
        pytest.raises(RemoteError, match="directory"),
    ):
        FileSender(link, segment_size=SEGMENT).send(path)
    ends = [request for request in upstream.requests if request.get("result") == "store"]
    assert len(ends) == 2, "once more, in case that the service had lost the file"


def test_a_file_that_changes_is_not_left_behind(
    upstream: Upstream, client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    path = make_file(3 * SEGMENT)

    def change(now: SendProgress) -> None:
        if now.sent == SEGMENT:
            path.write_bytes(b"other")

    with (
        Link(client_dir, answer_timeout=1.0, retry_for=PATIENCE) as link,
        pytest.raises(FileChangedError) as caught,
    ):
        FileSender(link, segment_size=SEGMENT).send(path, progress=change)
    assert caught.value.file_id is None
    assert upstream.requests[-1]["result"] == "cancel"
    assert list((storage / ".workdir").iterdir()) == []


def test_gives_up_in_the_end(upstream: Upstream, client_dir: Path, make_file: MakeFile) -> None:
    def restart(_: SendProgress) -> None:
        upstream.restart_before = 2

    with Link(client_dir, answer_timeout=1.0, retry_for=1.0) as link, pytest.raises(GaveUpError):
        FileSender(link, segment_size=SEGMENT).send(make_file(3 * SEGMENT), progress=restart)
    assert upstream.requests
