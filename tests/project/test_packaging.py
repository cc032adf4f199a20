"""What is installed from a wheel, from an sdist and as editable: the same, migrations included."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from environments import install, make_environment

ROOT = Path(__file__).parents[2]
FIRST_JOURNAL = ROOT / "tests" / "data" / "journal-0001.db"


def run(*command: str | Path, cwd: Path) -> str:
    """Run and return what was printed; a failure shows it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    process = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module", params=["wheel", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """How txstore was installed, and the Python that has it: all the rest is this one's."""
    kind: str = request.param
    what = {
        "wheel": next(built.glob("*.whl")),
        "sdist": next(built.glob("*.tar.gz")),
        "editable": ROOT,
    }[kind]
    python = make_environment(tmp_path_factory.mktemp(kind))
    install(python, *(["--editable", what] if kind == "editable" else [what]))
    return kind, python


def test_the_package_is_found_where_it_was_installed(installed: tuple[str, Path]) -> None:
    kind, python = installed
    where = Path(run(python, "-c", "import txstore; print(txstore.__file__)", cwd=python.parent))
    assert where.is_relative_to(ROOT if kind == "editable" else python.parent.parent)


def test_the_command_runs(installed: tuple[str, Path], tmp_path: Path) -> None:
    _, python = installed
    txstore = python.parent / "txstore"
    (tmp_path / "file").write_bytes(b"some bytes")
    run(txstore, "put", "file", "--storage-dir", "storage", cwd=tmp_path)
    assert (tmp_path / "storage" / "file").read_bytes() == b"some bytes"


UPGRADE = """
import sys
from txstore import FileStoreManager
with FileStoreManager(sys.argv[1]) as store:
    print(*(transfer.file_id for transfer in store.transfers()))
"""


def test_a_journal_of_the_first_revision_is_upgraded(
    installed: tuple[str, Path], tmp_path: Path
) -> None:
    if not FIRST_JOURNAL.exists():
        pytest.skip("tests/data/journal-0001.db is not there yet")
    _, python = installed
    working = tmp_path / "storage" / ".workdir"
    working.mkdir(parents=True)
    (working / "journal.db").write_bytes(FIRST_JOURNAL.read_bytes())
    assert run(python, "-c", UPGRADE, tmp_path / "storage", cwd=tmp_path).strip()


def test_the_wheel_has_the_package_its_migrations_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    migrations = [path for path in (ROOT / "migrations").rglob("*.*") if path.suffix != ".pyc"]
    assert ROOT / "migrations" / "env.py" in migrations
    for path in migrations:
        assert f"txstore/{path.relative_to(ROOT).as_posix()}" in names
    assert "txstore/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"txstore"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_sdist_has_what_its_own_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    here = str(Path(__file__).relative_to(ROOT))
    for path in ("README.md", "LICENSE", "CHANGELOG.md", ".ci/run", here):
        assert path in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".git/")]


def test_importing_txstore_loads_neither_alembic_nor_dxlclient_nor_the_command() -> None:
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import txstore"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in process.stderr.splitlines()
    }
    assert "txstore" in loaded
    assert loaded.isdisjoint({"alembic", "dxlclient", "click", "rich", "hypothesis", "pytest"})
