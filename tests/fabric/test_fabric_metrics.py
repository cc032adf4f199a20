"""What a service tells Prometheus, with all its workers."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from fabric_broker import MakeFile, ServiceProcess, StartService, wait_until
from prometheus_client.parser import text_string_to_metric_families

from txstore.cli.commands.serve import serve
from txstore.dxl import FileSender, Link

SEGMENT = 16 * 1024


def scraped(service: ServiceProcess) -> dict[str, float]:
    """By name and labels, as Prometheus reads what the service tells."""
    address = service.wait_line("Metrics are at").split()[-1]
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_workers_are_told_of_and_what_a_dead_one_did(
    shared_dir: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    service = start_service(shared_dir, "--workers", "2", "--metrics", "127.0.0.1:0")
    path = make_file(20 * SEGMENT)
    FileSender(link, segment_size=SEGMENT).send(path)
    # Looked at by each worker as soon as it starts, beside all else.
    wait_until(lambda: "txstore_transfers" in scraped(service), "the store was looked at")
    before = scraped(service)
    assert before["txstore_requests_total segment"] == 19
    assert before["txstore_requests_total store"] == 1
    assert before["txstore_received_bytes_total"] == 20 * SEGMENT
    assert before["txstore_workers"] == 2
    assert before["txstore_worker_restarts_total"] == 0
    assert 0 < before["txstore_certificate_expiry_timestamp_seconds"] - time.time() < 3 * 86400
    assert before["txstore_disk_free_bytes"] > 0
    for number in (1, 2):
        victim = int(service.wait_line(f"Worker {number} is process").split()[-1])
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: scraped(service)["txstore_workers"] == 2, "both are there again")
    FileSender(link, segment_size=SEGMENT).send(path, "again")
    after = scraped(service)
    assert after["txstore_requests_total store"] == 2
    assert after["txstore_received_bytes_total"] == 40 * SEGMENT
    assert after["txstore_worker_restarts_total"] == 2
    assert service.terminate() == 0
    assert not list(tmp_path.glob("txstore-metrics-*")), "nothing is left"


def test_the_extra_that_is_missing_is_named(shared_dir: Path) -> None:
    without = "import sys; sys.modules['prometheus_client'] = None"
    service = ServiceProcess(shared_dir, "--metrics", "127.0.0.1:0", wait=False, first=without)
    assert service.wait() == 2
    assert any("pip install 'txstore[metrics]'" in line for line in service.output)


def test_an_address_that_is_taken_is_said_at_once(shared_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = ServiceProcess(shared_dir, "--metrics", f"127.0.0.1:{port}", wait=False)
        assert service.wait() == 78
    assert any(f"--metrics 127.0.0.1:{port} cannot be" in line for line in service.output)


@pytest.mark.parametrize("address", ["9464", ":9464", "host:", "host:99999", "host:x"])
def test_what_is_no_address_is_wrong_usage(tmp_path: Path, address: str) -> None:
    result = CliRunner().invoke(serve, [str(tmp_path), "--metrics", address])
    assert result.exit_code == 2
    assert "such as 127.0.0.1:9464" in result.output
