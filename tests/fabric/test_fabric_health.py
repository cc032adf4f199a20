"""``txstore health`` of a service: it is asked over its fabric."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli_driver import run
from fabric_broker import PATIENCE, Broker

from txstore.dxl import FileTransferService

TOPIC = "/test/health/store"


def health(folder: Path, *options: object, code: int = 0) -> str:
    """What it prints, which is one line."""
    (line,) = run("health", "--config", folder, *options, code=code).stdout.splitlines()
    return str(line)


def test_a_service_that_answers_is_ok(broker: Broker, tmp_path: Path, storage: Path) -> None:
    general = {"storageDir": storage, "shareGroup": "g", "storeTopic": TOPIC}
    folder = broker.config_dir(tmp_path / "service", general)
    client = broker.config_dir(tmp_path / "client")
    with FileTransferService(folder) as service:
        assert service.run(PATIENCE)
        for line in (health(folder), health(client, "--topic", TOPIC)):
            assert line.startswith("ok: answered in ")
            assert line.endswith(
                (" the certificate ends in 2 days", " the certificate ends in 47 h")
            )
        # Another topic, where nobody answers.
        assert health(client, "--timeout", "0.3", code=1).startswith("not ok: no answer within 0.3")
        shutil.rmtree(storage)
        assert health(folder, code=1).startswith("not ok: ")


def test_a_service_that_cannot_be_reached_is_not_ok(tmp_path: Path, broker: Broker) -> None:
    assert "there is no such file" in health(tmp_path, code=1)
    folder = broker.config_dir(tmp_path / "client")
    broker.stop()
    assert health(folder, "--timeout", "1", code=1).startswith("not ok: ")
