"""The examples of docs/testing.md are code and tests that run, in a pytest as users have it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import FULL
from users import ROOT, run_pytest, settle

import txstore.testing
from txstore.testing import Claims, strategies

TEXT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n# (\w+\.py)(, continued)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_examples(folder: Path, many: int) -> None:
    """Write each block into the file that its first line names.

    :param many: examples that Hypothesis tries, where a block does not say how many
    """
    settle(folder, many)
    for name, continued, code in CODE.findall(TEXT):
        with (folder / name).open("a" if continued else "x", encoding="utf-8") as file:
            file.write(code)


def test_every_block_of_code_is_run() -> None:
    assert len(CODE.findall(TEXT)) == TEXT.count("```python")


def test_the_examples_are_tests_that_pass(tmp_path: Path) -> None:
    write_examples(tmp_path, 500 if FULL else 30)
    tests = [path.name for path in sorted(tmp_path.glob("test_*.py"))]
    assert tests == ["test_inbox.py", "test_intake.py", "test_quota.py"]
    assert "6 passed" in run_pytest(tmp_path)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("intake", "(self.folder / name).stat().st_size", 'int(message.other_fields["size"])'),
        ("quota", "not isinstance(fields, dict) or ", ""),
        ("quota", " if is_next else 0", ""),
        ("quota", 'int(fields["segment_number"])', 'fields["segment_number"]'),
        ("quota", "segments, size = 0, 0", "segments, size = -1, 0"),
        ("quota", ' and known.state != "stored"', ""),
        ("quota", "int(fields", "file_id and int(fields"),
        ("quota", ' or fields.get("result") == "cancel"', ' or fields.get("result")'),
        ("inbox", "error.errno != errno.ENOSPC", "False"),
    ],
    ids=[
        "old size",
        "no mapping",
        "repeat",
        "number as text",
        "first segment",
        "id used again",
        "no id",
        "only segment",
        "other error",
    ],
)
def test_the_examples_find_the_mistake_they_are_about(
    tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    write_examples(tmp_path, 2000)
    code = (tmp_path / f"{name}.py").read_text(encoding="utf-8")
    assert right in code
    (tmp_path / f"{name}.py").write_text(code.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(AssertionError, match="1 failed"):
        run_pytest(tmp_path, "-x", f"test_{name}.py")


def test_every_strategy_and_every_claim_is_in_the_docs() -> None:
    for name in Claims.__dataclass_fields__:
        assert f"| `{name}` |" in TEXT
    documented = TEXT + "".join(filter(None, (strategies.__doc__,)))
    for name in ("interleavings", "transfers", "crashes", "disk_errors"):
        assert name in documented
    for name in ("StoreContract", "CrashingStore", "FaultyDisk", "FaultPlan", "Transfer"):
        assert f"`{name}`" in TEXT
        assert name in txstore.testing.__all__
