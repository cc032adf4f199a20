"""Tests as users of txstore write and run them: in a folder and a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_pytest(folder: Path, *args: str) -> str:
    """Run the tests in a folder; what pytest printed.  A failure of theirs shows all of it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    # Where txstore is installed, pytest finds the fixtures by themselves.
    installed = any(one.value == "txstore.testing.plugin" for one in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "txstore.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *args],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


SETTINGS = """
from hypothesis import Phase, settings

settings.register_profile(
    "short",
    max_examples={many},
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("short")
"""


def settle(folder: Path, many: int) -> None:
    """Have Hypothesis try so many examples, where a test does not say how many, each time the same,
    and however long they take."""
    (folder / "conftest.py").write_text(SETTINGS.format(many=many), encoding="utf-8")
