"""A real uWSGI in its default prefork mode: it forks from C, and no hook of Python's runs."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from crew import visible, wait_for
from support import at_each_level

from txstore import FileStoreManager
from txstore.options import Level

UWSGI = shutil.which("uwsgi", path=os.path.dirname(sys.executable))
WORKERS, SENDERS, SEGMENTS = 4, 8, 12

pytestmark = pytest.mark.skipif(UWSGI is None, reason="uWSGI is not installed")

APPLICATION = """
import os
from types import SimpleNamespace
from urllib.parse import parse_qsl
from txstore import FileStoreManager
from txstore.errors import TxStoreError

store = FileStoreManager(os.environ["STORAGE"], durability=os.environ["LEVEL"])
if os.environ["USED"]:
    store.transfers()

def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    fields = dict(parse_qsl(environ["QUERY_STRING"]))
    try:
        done = store.store_segment(SimpleNamespace(payload=body, other_fields=fields))
        answer, status = f"{done.segments_received} {os.getpid()}", "200 OK"
    except (TxStoreError, OSError) as error:
        answer, status = repr(error), "500 Internal Server Error"
    start_response(status, [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


class Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def answers(listening: Path) -> bool:
    """Whether a socket takes connections: its name is there before it does."""
    connection = Connection(listening)
    try:
        connection.connect()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    finally:
        connection.close()
    return True


@contextmanager
def served(folder: Path, level: Level, used: bool) -> Iterator[Path]:
    """The socket of a uWSGI whose module made a manager before it forked its workers."""
    (folder / "application.py").write_text(APPLICATION)
    listening = folder / "socket"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                *(str(UWSGI), "--master", "--die-on-term", "--need-app"),
                *("--processes", str(WORKERS), "--http-socket", str(listening)),
                *("--pythonpath", str(folder), "--module", "application"),
                *("--virtualenv", sys.prefix, "--listen", "64"),
                *(item for path in sys.path if path for item in ("--pythonpath", path)),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ
            | {"STORAGE": str(folder / "storage"), "LEVEL": level, "USED": "1" if used else ""},
        )
    try:
        wait_for(lambda: answers(listening) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield listening
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(listening: Path, name: str) -> set[str]:
    """Send a file, each segment to whoever takes it; the workers that answered."""
    parts = [f"{name} {number} ".encode() * 100 for number in range(1, SEGMENTS + 1)]
    data, workers = b"".join(parts), set()
    for number, part in enumerate(parts, 1):
        query = f"file_id={name}&segment_number={number}"
        if number == SEGMENTS:
            sha256 = hashlib.sha256(data).hexdigest()
            query += f"&result=store&name={name}&size={len(data)}&hash_sha256={sha256}"
        connection = Connection(listening)
        connection.request("POST", f"/?{query}", part)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        count, pid = text.split()
        assert count == str(number)
        workers.add(pid)
    return workers


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used before the fork"])
@at_each_level
def test_workers_that_were_forked_after_the_manager_was_made_lose_nothing(
    tmp_path: Path, level: Level, used: bool
) -> None:
    names = [f"file{number}" for number in range(SENDERS)]
    with served(tmp_path, level, used) as listening, ThreadPoolExecutor(SENDERS) as senders:
        workers = set().union(*senders.map(lambda name: send(listening, name), names))
    assert len(workers) > 1, (tmp_path / "log").read_text()
    stored = visible(tmp_path / "storage")
    assert sorted(stored) == names
    for name in names:
        expected = b"".join(f"{name} {number} ".encode() * 100 for number in range(1, SEGMENTS + 1))
        assert stored[name] == expected
    with FileStoreManager(tmp_path / "storage") as store:
        assert store.transfers() == []
