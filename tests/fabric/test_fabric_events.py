"""A service hands its store's events to a command and a web address, beside all that it answers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from fabric_broker import MakeFile, StartService, wait_until
from receiver import receiving

from txstore import FileStoreManager
from txstore.dxl import FileSender, Link
from txstore.events.handing import signature_of


def add_events(folder: Path, text: str) -> None:
    with (folder / "dxlfiletransferservice.config").open("a") as file:
        file.write(f"\n[Events]\n{text}\n")


def test_workers_tell_each_event_once_and_in_order_whoever_dies(
    shared_dir: Path,
    storage: Path,
    link: Link,
    make_file: MakeFile,
    start_service: StartService,
    tmp_path: Path,
) -> None:
    got, secret = tmp_path / "got", tmp_path / "secret"
    secret.write_text("open sesame\n")
    with receiving() as receiver:
        receiver.answers = [503]
        add_events(
            shared_dir,
            f"exec = cat >> '{got}'\nwebhook = {receiver.url}\nsecretFile = {secret}",
        )
        service = start_service(shared_dir, "--workers", "2")
        sender = FileSender(link)
        for number in range(3):
            sender.send(make_file(1000, f"file{number}"))
        wait_until(lambda: got.exists() and len(got.read_text().splitlines()) == 3, "all told")
        wait_until(lambda: len(receiver.posts) == 4, "all posted")
        for number in (1, 2):  # one of the two has the turn
            victim = int(service.wait_line(f"Worker {number} is process").split()[-1])
            os.kill(victim, signal.SIGKILL)
        sender.send(make_file(1000, "file3"))
        wait_until(lambda: len(got.read_text().splitlines()) >= 4, "told after a death")
        wait_until(lambda: len(receiver.posts) >= 5, "posted after a death")
        assert service.terminate() == 0
    with FileStoreManager(storage) as store:
        events = [event.to_dict() for event in store.events()]
        assert [event["name"] for event in events] == ["file0", "file1", "file2", "file3"]
        names = {one.name: one.behind for one in store.consumers()}
        assert names.keys() == {"service exec", "service webhook"}
    assert [json.loads(line) for line in got.read_text().splitlines()] == events
    assert [json.loads(post.body) for post in receiver.posts] == [events[0], *events]
    for post in receiver.posts:
        assert post.headers["X-Txstore-Signature"] == signature_of(post.body, b"open sesame")


def test_an_address_that_does_not_answer_is_in_nobodys_way(
    service_dir: Path, link: Link, make_file: MakeFile, start_service: StartService, storage: Path
) -> None:
    add_events(service_dir, "exec = exec sleep 1000\nwebhook = http://127.0.0.1:9/")
    service = start_service(service_dir)
    for number in range(2):
        FileSender(link).send(make_file(1000, f"file{number}"))
    service.wait_line("cannot be reached")
    assert service.terminate() == 0
    with FileStoreManager(storage) as store:
        assert [one.cursor for one in store.consumers()] == [0, 0]
