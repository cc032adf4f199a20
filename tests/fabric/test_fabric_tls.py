"""What a person is told when broker and client do not take each other's certificates."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dxl_broker import DxlBroker
from fabric_broker import Certificates

from txstore.dxl import FabricError
from txstore.dxl.client_config import load_client_config
from txstore.dxl.fabric import Connection

# One of dxlclient's threads would die of what this module is about.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of another authority."""
    return Certificates.make(tmp_path_factory.mktemp("others"))


@pytest.fixture
def broker(dxl_broker: DxlBroker) -> Iterator[DxlBroker]:
    yield dxl_broker
    assert dxl_broker.connects == 0, "dxlclient has tried"


def _expired(certificates: Certificates, _others: Certificates, folder: Path) -> Certificates:
    mine = Certificates(shutil.copytree(certificates.folder, folder))
    mine._openssl(
        *("x509", "-req", "-in", str(folder / "client.csr"), "-days", "-1", "-set_serial", "3"),
        *("-CA", str(mine.authority), "-CAkey", str(folder / "ca.key")),
        *("-out", str(mine.pair("client")[0])),
    )
    return mine


def _unknown_client(
    certificates: Certificates, _others: Certificates, folder: Path
) -> Certificates:
    mine = Certificates(shutil.copytree(certificates.folder, folder))
    mine._openssl("req", "-x509", "-subj", "/CN=client", *mine._new_key("client"))
    return mine


def _unknown_broker(certificates: Certificates, others: Certificates, folder: Path) -> Certificates:
    mine = Certificates(shutil.copytree(certificates.folder, folder))
    shutil.copy(others.authority, mine.authority)
    return mine


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_expired, "certificate expired"),
        (_unknown_client, "unknown ca"),
        (_unknown_broker, "certificate verify failed: "),
    ],
)
def test_why_a_certificate_is_not_taken(
    broker: DxlBroker,
    certificates: Certificates,
    others: Certificates,
    tmp_path: Path,
    make: Callable[[Certificates, Certificates, Path], Certificates],
    why: str,
) -> None:
    mine = make(certificates, others, tmp_path / "certificates")
    broker.certificates = mine  # of those who are told how to reach it
    config = load_client_config(broker.config_dir(tmp_path / "client"))
    with pytest.raises(FabricError, match=f"127.0.0.1 port {broker.port}: .*{why}") as caught:
        Connection(config)
    assert "_ssl.c" not in str(caught.value)


def test_a_broker_that_takes_only_the_newest_tls(dxl_broker: DxlBroker, tmp_path: Path) -> None:
    dxl_broker._context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = Connection(load_client_config(dxl_broker.config_dir(tmp_path / "client")))
    assert connection.connected
    assert connection.close()
