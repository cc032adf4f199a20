"""The commands without a broker: what they refuse, and what they say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from local_link import Handler, LocalLink, Message, local

from txstore.cli.commands.files import files
from txstore.cli.commands.get import get
from txstore.cli.commands.send import send
from txstore.dxl.protocol import LARGEST_SEGMENT, STORE_TOPIC, ErrorReply, Reply, Topics

Run = Callable[..., "tuple[int, str]"]


@pytest.fixture
def link(tmp_path: Path) -> Iterator[LocalLink]:
    with local(tmp_path / "storage") as link:
        yield link


@pytest.fixture
def run(link: LocalLink, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; its exit code and what it prints."""

    monkeypatch.setattr("txstore.dxl.Link", lambda *_, **__: nullcontext(link))

    def run(command: Any, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(command, [*map(str, arguments), "--config", "my config"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result.exit_code, result.output

    return run


def test_a_file_whose_name_is_no_text_does_not_stop_the_others(
    run: Run, tmp_path: Path, path: Path
) -> None:
    strange = tmp_path / os.fsdecode(b"strange\xff")
    strange.write_bytes(b"strange")
    code, output = run(send, strange, path)
    assert code == 1
    assert r"'strange\udcff' is not UTF-8 and cannot be sent" in output
    assert output.count("--to") == 1
    assert (tmp_path / "storage" / path.name).read_bytes() == path.read_bytes()
    code, output = run(send, strange, "--to", "plain")
    assert code == 0, output
    assert (tmp_path / "storage" / "plain").read_bytes() == b"strange"


def test_what_cannot_be_sent_is_not_said_to_be_sent(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code, output = run(send, tmp_path, tmp_path / "fifo", tmp_path / "nothing")
    assert code == 1
    lines = output.splitlines()
    assert [line.startswith("Error: ") for line in lines] == [True] * 3, output
    for line, what in zip(lines, ("directory", "Not a regular file", "No such file"), strict=True):
        assert what in line


@pytest.mark.parametrize("topic", [STORE_TOPIC, "/our/store"])
def test_a_file_that_changed_tells_how_to_drop_what_was_sent(
    run: Run, link: LocalLink, path: Path, topic: str
) -> None:
    def change(handler: Handler, message: Message) -> Reply | ErrorReply:
        path.write_bytes(b"other")
        return handler(message)

    link.serve_on(topic)
    link.override[topic] = change
    code, output = run(send, path, "--segment-size", "600", "--topic", topic)
    assert code == 1
    (left,) = link.manager.transfers()
    expected = f"txstore cancel {left.file_id} --config 'my config'"
    assert f"{expected} --topic {topic}" in output if topic != STORE_TOPIC else expected in output
    assert ("--topic" in output) == (topic != STORE_TOPIC)


@pytest.mark.parametrize(
    ("size", "code"), [(LARGEST_SEGMENT, 0), (LARGEST_SEGMENT + 1, 2), ("2MiB", 2)]
)
def test_a_segment_larger_than_brokers_take_is_refused(
    run: Run, path: Path, size: object, code: int
) -> None:
    found, output = run(send, path, "--segment-size", size)
    assert (found, str(LARGEST_SEGMENT) in output) == (code, code == 2), output


@pytest.mark.parametrize("target", ["fifo", "missing/", "missing/file", "folder"])
def test_a_target_that_cannot_be_is_refused_before_anything_is_got(
    run: Run, link: LocalLink, tmp_path: Path, path: Path, target: str
) -> None:
    assert run(send, path)[0] == 0
    targets = tmp_path / "targets"
    (targets / "folder" / path.name).mkdir(parents=True)
    os.mkfifo(targets / "fifo")
    before = sorted(targets.rglob("*"))
    link.faults = iter(["no request is expected"])
    code, output = run(get, path.name, "--output", f"{targets}/{target}")
    assert (code, next(link.faults, "")) == (1, "no request is expected")
    assert output.startswith(f"Error: '{targets}/{target.split('/')[0]}"), output
    assert sorted(targets.rglob("*")) == before
    assert (targets / "fifo").is_fifo()


def test_an_answer_that_makes_no_sense_is_an_error_in_words(run: Run, link: LocalLink) -> None:
    link.override[Topics().listing] = lambda *_: Reply(b"no JSON", {})
    code, output = run(files)
    assert code == 1
    assert output.startswith("Error: The payload should be a JSON object, but is not")


@pytest.mark.parametrize("name", ["", "/"])
def test_what_is_no_name_is_wrong_usage(run: Run, name: str) -> None:
    assert run(get, name)[0] == 2


def test_a_cancelled_file_is_said_to_be_and_the_others_are_sent(
    run: Run, link: LocalLink, tmp_path: Path, path: Path
) -> None:
    def cancelled(handler: Handler, message: Message) -> Reply | ErrorReply:
        if message.other_fields["segment_number"] == "2":
            link.manager.cancel(message.other_fields["file_id"])
        return handler(message)

    other = tmp_path / "other"
    other.write_bytes(b"other")
    link.override[STORE_TOPIC] = cancelled
    code, output = run(send, path, other, "--segment-size", "600")
    assert code == 1
    assert f"Error: {path}: cancelled: its transfer" in output
    assert (tmp_path / "storage" / "other").read_bytes() == b"other"
    assert not (tmp_path / "storage" / path.name).exists()


def test_json_has_an_object_for_what_was_sent_and_got(run: Run, tmp_path: Path) -> None:
    path, back = tmp_path / "f.bin", tmp_path / "back"
    path.write_bytes(b"some bytes")
    sha256 = hashlib.sha256(b"some bytes").hexdigest()
    code, output = run(send, path, "--json", "--quiet")
    sent = json.loads(output)
    assert sent.pop("file_id")
    assert (code, sent) == (
        0,
        {
            "path": str(path),
            "name": "f.bin",
            "size": 10,
            "sha256": sha256,
            "segments": 1,
            "resumed_from": 0,
        },
    )
    code, output = run(get, "f.bin", "--json", "--quiet", "--output", back)
    assert (code, json.loads(output)) == (
        0,
        {"name": "f.bin", "path": str(back), "size": 10, "sha256": sha256},
    )
    assert back.read_bytes() == b"some bytes"
