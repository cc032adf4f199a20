"""The service on two hosts, over one object store and one PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_servers import Cluster
from dxlfiletransferclient import FileTransferClient
from fabric_broker import Broker, MakeFile, StartService

from txstore.dxl import FileFetcher, FileSender, Link, RemoteError

SEGMENT = 16 * 1024


def test_upstreams_client_does_not_notice_that_a_host_is_killed(
    broker: Broker,
    tmp_path: Path,
    client_dir: Path,
    cluster: Cluster,
    make_file: MakeFile,
    start_service: StartService,
) -> None:
    # Hosts that share nothing but the servers: each has its own configuration.
    settings: dict[str, object] = {
        "storageDir": cluster.storage_dir,
        "workingDir": cluster.working_dir,
        "shareGroup": "hosts",
    }
    folders = [broker.config_dir(tmp_path / f"host{number}", settings) for number in range(2)]
    hosts = [start_service(folder, "--workers", "2", wait=False) for folder in folders]
    for host in hosts:
        host.wait_ready()

    def kill_one(result: object) -> None:
        if getattr(result, "segments_received", 0) == 4:
            hosts[0].kill()

    path = make_file(12 * SEGMENT + 5)
    with broker.client(client_dir) as client:
        sender = FileTransferClient(client)
        sender.send_file_request(str(path), max_segment_size=SEGMENT, callback=kill_one)
    assert cluster.files() == {path.name: path.read_bytes()}
    assert cluster.rows("SELECT kind, segments FROM event") == [("stored", 13)]
    assert hosts[1].terminate() == 0


def test_clients_list_and_get_what_is_stored(
    broker: Broker,
    tmp_path: Path,
    cluster: Cluster,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
) -> None:
    settings: dict[str, object] = {
        "storageDir": cluster.storage_dir,
        "workingDir": cluster.working_dir,
    }
    start_service(broker.config_dir(tmp_path / "host", settings))
    made = {f"folder/{size}": make_file(size, str(size)) for size in (0, 10, 3 * 1024 * 1024)}
    for name, path in made.items():
        FileSender(link).send(path, name)
    fetcher = FileFetcher(link)
    assert {one.name: one.size for one in fetcher.files(2)} == {
        name: path.stat().st_size for name, path in made.items()
    }
    for name, path in made.items():
        fetcher.get(name, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == path.read_bytes()
    with pytest.raises(RemoteError, match="No file 'other' is stored"):
        fetcher.get("other", tmp_path / "other")
