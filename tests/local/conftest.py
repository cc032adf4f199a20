"""These tests are about what is on the disk, so they work there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import DISK


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on the disk; it stays where the test fails."""
    folder, failed = (
        Path(tempfile.mkdtemp(prefix="txstore-", dir=DISK)),
        request.session.testsfailed,
    )
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder)
