"""``txstore put`` keeps to the limits that its command line or the environment sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_driver import put, run

from txstore import FileStoreManager


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes(3000))
    return path


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-file-size", "2KiB", "files of at most 2048 bytes are taken"),
        ("--max-transfers", "0", "0 transfers are under way, and no more are taken"),
        ("--max-unfinished-bytes", "1000", "may have 1000 together"),
        ("--min-free", "100%", "are to stay free"),
    ],
)
def test_what_is_beyond_a_limit_is_refused(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, told: str
) -> None:
    assert told in run(*put(source, storage, option, value), code=1).stderr
    variable = "TXSTORE" + option[1:].replace("-", "_").upper()
    monkeypatch.setenv(variable, value)
    assert told in run(*put(source, storage), code=1).stderr
    with FileStoreManager(storage) as store:
        assert store.transfers() == []
    # The command line comes first.
    monkeypatch.setenv(variable, "1" if option == "--max-transfers" else "0")
    if option in ("--max-transfers", "--min-free"):
        run(*put(source, storage))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-file-size", "big"), ("--max-transfers", "-1"), ("--min-free", "101%")],
)
def test_a_limit_that_cannot_be_is_wrong_usage(
    source: Path, storage: Path, option: str, value: str
) -> None:
    assert option in run(*put(source, storage, option, value), code=2).stderr
    assert not storage.exists()
