"""Every file of ``examples/`` is run, as its own text says."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from users import run_pytest, settle

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_script(name: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "storage"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_asyncio(tmp_path: Path, _: pytest.MonkeyPatch) -> None:
    assert run_script("asyncio_threads.py", tmp_path).split() == [f"file-{n}" for n in range(8)]
    assert (tmp_path / "storage" / "file-7").stat().st_size == 1_400_000


def check_prefork(tmp_path: Path, _: pytest.MonkeyPatch) -> None:
    assert run_script("prefork_service.py", tmp_path).count("is acknowledged") == 10


def check_suite(tmp_path: Path, _: pytest.MonkeyPatch) -> None:
    settle(tmp_path, 100)
    shutil.copy(EXAMPLES / "test_inbox.py", tmp_path)  # away from this repository's settings
    assert "3 passed" in run_pytest(tmp_path, "test_inbox.py")


def check_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "storage"))
    spec = importlib.util.spec_from_file_location("fastapi_upload", EXAMPLES / "fastapi_upload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with TestClient(module.app) as client:
        check_uploads(client, tmp_path / "storage")


def check_uploads(client: TestClient, storage: Path) -> None:
    data, octets = b"first, second", {"Content-Type": "application/octet-stream"}
    assert client.put("/uploads/a/1", content=data[:7], headers=octets).json() == {
        "file_id": "a",
        "segments_received": 1,
    }
    assert client.get("/uploads/a").json()["bytes_received"] == 7
    wrong = client.put("/uploads/a/3", content=b"x", headers=octets)
    assert wrong.status_code == 400
    assert "segment 2" in wrong.json()["detail"]
    sha256 = hashlib.sha256(data).hexdigest()
    claim: dict[str, str | int] = {"name": "a.txt", "size": 13, "sha256": sha256}
    last = client.put("/uploads/a/2", content=data[7:], headers=octets, params=claim)
    assert last.json()["result"] == "store"
    assert (storage / "a.txt").read_bytes() == data
    assert client.get("/uploads/b").status_code == 404
    assert client.delete("/uploads/b").json()["result"] == "cancel"


CHECKS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "asyncio_threads.py": check_asyncio,
    "fastapi_upload.py": check_fastapi,
    "prefork_service.py": check_prefork,
    "test_inbox.py": check_suite,
}


def test_each_example_is_checked() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CHECKS[name](tmp_path, monkeypatch)
