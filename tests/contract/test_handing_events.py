"""Events are handed to commands and web addresses, each again and again until it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from pathlib import Path

import pytest
from crew import last, wait_for
from receiver import receiving
from support import OpenStore

from txstore import FileStoreManager
from txstore.events import handing
from txstore.events.handing import Command, NotTakenError, Webhook, hand_over, web_address

pytestmark = pytest.mark.promise(1)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(handing, "LONGEST_PAUSE", 0.004)


@pytest.fixture
def store(manager: OpenStore) -> FileStoreManager:
    made = manager()
    for name in ("one", "two", "three"):
        made.store_segment(last(name, 1, name.encode(), name, name.encode()))
    return made


def cursor(store: FileStoreManager) -> int:
    [consumer] = store.consumers()
    return consumer.cursor


def test_a_command_gets_each_event_as_json_and_in_order(
    store: FileStoreManager, tmp_path: Path
) -> None:
    path = tmp_path / "got"
    with store.events("index") as feed:
        hand_over(feed, Command(f"cat >> '{path}'"))
    got = [json.loads(line) for line in path.read_text().splitlines()]
    assert got == [event.to_dict() for event in store.events()]
    assert [one["name"] for one in got] == ["one", "two", "three"]
    assert cursor(store) == 3


def test_a_command_that_fails_gets_the_same_event_again_before_any_other(
    store: FileStoreManager, tmp_path: Path
) -> None:
    path = tmp_path / "got"
    told: list[str] = []
    # Fails twice at each event.
    command = f"cat >> '{path}'; test $(( $(wc -l < '{path}') % 3 )) = 0"
    with store.events("index") as feed:
        hand_over(feed, Command(command), told.append)
    got = [json.loads(line)["sequence"] for line in path.read_text().splitlines()]
    assert got == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert told[:2] == [
        f"Event 1 (stored) was not taken: the command ended with 1. Once more in {pause} s."
        for pause in ("0.001", "0.002")
    ]


def test_a_command_that_reads_nothing_takes_the_event(store: FileStoreManager) -> None:
    with store.events("index") as feed:
        hand_over(feed, Command("exec true"))
    assert cursor(store) == 3


def test_a_feed_that_is_stopped_ends_the_command_and_loses_no_event(
    store: FileStoreManager, tmp_path: Path
) -> None:
    path = tmp_path / "begun"
    feed = store.events("index", follow=True)
    command = Command(f"touch '{path}'; exec sleep 100")
    handing_over = threading.Thread(target=hand_over, args=(feed, command))
    handing_over.start()
    wait_for(path.exists)
    feed.stop()
    handing_over.join(60)
    assert not handing_over.is_alive()
    feed.close()
    assert cursor(store) == 0
    with store.events("index") as again:
        hand_over(again, Command("true"))
    assert cursor(store) == 3


def test_a_feed_that_is_stopped_waits_for_no_pause(
    store: FileStoreManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "FIRST_PAUSE", 1000.0)
    feed = store.events("index", follow=True)
    with feed:
        hand_over(feed, Command("false"), lambda _text: feed.stop())
    assert cursor(store) == 0


def test_a_web_address_gets_each_event_signed(store: FileStoreManager) -> None:
    with receiving() as receiver, store.events("index") as feed:
        hand_over(feed, Webhook(receiver.url, b"secret"))
    assert [json.loads(post.body) for post in receiver.posts] == [
        event.to_dict() for event in store.events()
    ]
    for post in receiver.posts:
        digest = hmac.new(b"secret", post.body, hashlib.sha256).hexdigest()
        assert post.headers["X-Txstore-Signature"] == f"sha256={digest}"
        assert post.headers["Content-Type"] == "application/json"
        assert post.path == "/events"


def test_what_a_web_address_does_not_take_is_posted_again(store: FileStoreManager) -> None:
    told: list[str] = []
    with receiving() as receiver, store.events("index") as feed:
        receiver.answers = [500, 302, 204, 404]
        hand_over(feed, Webhook(f"{receiver.url}?token=secret"), told.append)
    got = [json.loads(post.body)["sequence"] for post in receiver.posts]
    assert got == [1, 1, 1, 2, 2, 3]
    assert {post.path for post in receiver.posts} == {"/events?token=secret"}
    assert "X-Txstore-Signature" not in receiver.posts[0].headers
    assert [text.split("answered ")[1][:3] for text in told] == ["500", "302", "404"]
    assert not any("token" in text for text in told)


def test_an_address_that_cannot_be_reached_takes_nothing() -> None:
    with receiving() as receiver:
        url = receiver.url
    with pytest.raises(NotTakenError, match=r"http://127\.0\.0\.1 cannot be reached"):
        Webhook(url).take(b"{}", threading.Event())


@pytest.mark.parametrize("text", ["", "here", "file:///etc/passwd", "ftp://host/x", "http://"])
def test_only_web_addresses_are_posted_to(text: str) -> None:
    with pytest.raises(ValueError, match="http or https"):
        web_address(text)
