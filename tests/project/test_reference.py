"""The reference of the public names is made from their docstrings, without a warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from txstore import errors

ROOT = Path(__file__).parents[2]
MODULES = [
    "store",
    "inspection",
    "checks",
    "events",
    "constants",
    "limits",
    "errors",
    "disk",
    "dxl",
    "testing",
    "testing.strategies",
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page that the command of CONTRIBUTING.md makes, in a folder of its own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^\.venv/bin/(python -m sphinx .+)$", text, re.MULTILINE)
    folder = tmp_path_factory.mktemp("reference")
    command = command.replace("build/reference", str(folder)).replace("python", sys.executable, 1)
    process = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_it(built: str, module: str) -> None:
    described = set(re.findall(r'<dt class="sig [^>]*id="([\w.]+)"', built))
    wanted = {f"txstore.{module}.{name}" for name in public(f"txstore.{module}")}
    assert wanted
    assert sorted(wanted - described) == []


def public(module: str) -> set[str]:
    """The names that a module means to be used, without errors of the package's one list."""
    found = importlib.import_module(module)
    own = [name for name, one in vars(found).items() if getattr(one, "__module__", "") == module]
    names = getattr(found, "__all__", [name for name in own if not name.startswith("_")])
    return {name for name in names if module == "txstore.errors" or not hasattr(errors, name)}
