"""The commands, as a person at a terminal uses them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from fabric_broker import MakeFile
from fabric_command import Command, run

from txstore.dxl import FileSender, FileTransferService, Link

SEGMENT = 16 * 1024


@pytest.mark.usefixtures("service")
def test_send_files_get(
    client_dir: Path, storage: Path, tmp_path: Path, make_file: MakeFile
) -> None:
    paths = [make_file(3 * SEGMENT, "one.bin"), make_file(10, "two.bin")]
    code, output = run("send", *paths, "--config", client_dir, "--to", "sub/")
    assert code == 0, output
    assert "stored sub/one.bin: 48.0 KiB in 1 segments" in output
    for path in paths:
        assert (storage / "sub" / path.name).read_bytes() == path.read_bytes()

    code, output = run("send", paths[0], "--config", client_dir, "--to", "sub/one.bin", "--quiet")
    assert (code, output) == (0, "")

    code, output = run("files", "--config", client_dir, "--json")
    assert code == 0, output
    listed = [json.loads(line) for line in output.splitlines()]
    assert [(file["name"], file["size"]) for file in listed] == [
        ("sub/one.bin", 3 * SEGMENT),
        ("sub/two.bin", 10),
    ]
    code, output = run("files", "--config", client_dir)
    assert [line.split()[-1] for line in output.splitlines()] == ["sub/one.bin", "sub/two.bin"]

    target = tmp_path / "back"
    code, output = run("get", "sub/one.bin", "--config", client_dir, "--output", target)
    assert code == 0, output
    assert hashlib.sha256(paths[0].read_bytes()).hexdigest() in output
    assert target.read_bytes() == paths[0].read_bytes()


@pytest.mark.usefixtures("service")
def test_one_bad_file_does_not_stop_the_others(
    client_dir: Path, storage: Path, make_file: MakeFile
) -> None:
    good = make_file(10, "good.bin")
    (storage / "taken.bin").mkdir()
    code, output = run(
        *("send", make_file(10, "taken.bin"), good.parent / "missing.bin", good),
        *("--config", client_dir),
    )
    assert code == 1
    errors = [line for line in output.splitlines() if line.startswith("Error:")]
    assert ["taken.bin" in errors[0], "missing.bin" in errors[1]] == [True, True]
    assert (storage / "good.bin").read_bytes() == good.read_bytes()
    code, output = run("get", "nothing", "--config", client_dir)
    assert (code, output) == (1, "Error: No file 'nothing' is stored\n")


@pytest.mark.usefixtures("service")
def test_an_id_that_no_message_can_carry_is_refused(client_dir: Path) -> None:
    code, output = run("cancel", os.fsdecode(b"id\xff"), "--config", client_dir)
    assert (code, output) == (1, "Error: 'id\\udcff' is not UTF-8 and cannot be sent\n")


def test_bad_usage_and_bad_configuration(tmp_path: Path, make_file: MakeFile) -> None:
    path = make_file(10)
    for arguments, code in (
        (("send", path), 2),
        (("send", path, "--config", tmp_path, "--segment-size", "much"), 2),
        (("send", path, path, "--config", tmp_path), 2),
        (("send", path, "--config", tmp_path), 78),
        (("files", "--config", tmp_path), 78),
        (("send", path, "--config", ""), 2),
        (("send", path, "--config", tmp_path, "--segment-size", "0"), 2),
        (("serve", ""), 2),
        (("serve", tmp_path), 78),
        (("cancel", "id", "--config", tmp_path), 78),
        (("cancel", "id", "--config", tmp_path, "--topic", "/all/#"), 2),
        (("send", path, "--config", tmp_path, "--to", ""), 2),
        (("get", "name", "--config", tmp_path, "--topic", "/all/#"), 2),
        (("get", "name", "--config", tmp_path, "--topic", ""), 2),
        (("get", "name", "--config", tmp_path, "--output", ""), 2),
    ):
        found, output = run(*arguments)
        assert (found, "Traceback" in output) == (code, False), (arguments, output)


@pytest.mark.usefixtures("service")
def test_only_regular_files_are_sent(client_dir: Path, storage: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    made_up = "/proc/self/status"  # its size is 0, and yet there are bytes in it
    code, output = run("send", pipe, tmp_path, "/dev/null", made_up, "--config", client_dir)
    errors = [line for line in output.splitlines() if line.startswith("Error:")]
    assert (code, len(errors)) == (1, 4), output
    assert "Not a regular file" in errors[0]
    assert "Is a directory" in errors[1]
    assert "Not a regular file" in errors[2]
    assert "was changed" in errors[3]
    assert [path.name for path in storage.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.usefixtures("service")
def test_get_into_a_folder(
    client_dir: Path, tmp_path: Path, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(100)
    assert run("send", path, "--config", client_dir, "--to", "sub/")[0] == 0
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    code, output = run("get", "sub/file.bin", "--config", client_dir)
    assert code == 0, output
    assert "getting 100 B" in output
    assert run("get", "sub/file.bin/", "--config", client_dir, "--output", "../two")[0] == 0
    for folder in ("one", "two"):
        assert (tmp_path / folder / "file.bin").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_ctrl_c_stops_and_a_second_one_cancels(
    service: FileTransferService,
    client_dir: Path,
    storage: Path,
    make_file: MakeFile,
    again: bool,
) -> None:
    assert service.ready.is_set()
    path = make_file(2000 * 1024)
    arguments = ("send", path, "--config", client_dir, "--segment-size", "1KiB")
    command = Command(*arguments)
    try:
        file_id = command.wait_line(": id ").split()[-1]
        command.interrupt()
        command.wait_line("the same command goes on from here")
        if again:
            command.interrupt()
        code, output = command.end()
    finally:
        command.kill()
    assert code == 130, output
    with Link(client_dir, answer_timeout=2.0, retry_for=20.0) as link:
        state = FileSender(link).status(file_id).state
    assert not (storage / path.name).exists()
    if again:
        assert state == "unknown"
        assert "cancelled" in output
        return
    assert state == "receiving"
    code, output = run("cancel", file_id, "--config", client_dir)
    assert code == 0, output
    assert f"cancelled {file_id}" in output
    code, output = run("cancel", file_id, "--config", client_dir)
    assert code == 1
    assert "no unfinished transfer" in output


@pytest.mark.usefixtures("service")
def test_the_same_command_goes_on(client_dir: Path, storage: Path, make_file: MakeFile) -> None:
    path = make_file(2000 * 1024)
    command = Command("send", path, "--config", client_dir, "--segment-size", "1KiB")
    command.wait_line(": id ")
    command.kill()
    command.end()
    code, output = run("send", path, "--config", client_dir)
    assert code == 0, output
    assert (storage / path.name).read_bytes() == path.read_bytes()
