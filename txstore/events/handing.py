"""Events handed to a command or to a web address, one after the other, each until it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from txstore.events.feed import Delivery, Feed
from txstore.protocol.event import Event

logger = logging.getLogger(__name__)

#: Seconds before an event that was not taken is handed over again: growing.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Seconds that a web address may take to answer.
ANSWER_TIMEOUT = 30.0
#: Seconds between two looks whether a command has ended, or is to be ended.
_LOOK = 0.05
#: Seconds that a command has after it was asked to end.
_PATIENCE = 5.0

SIGNATURE = "X-Txstore-Signature"


class NotTakenError(Exception):
    """An event was not taken; the text says why."""


class Target(Protocol):
    """What events are handed to."""

    def take(self, body: bytes, stopped: threading.Event) -> None:
        """Take one event.

        :param body: its JSON
        :param stopped: set when nobody waits for it any more
        :raises NotTakenError: it was not taken
        """
        ...


def body_of(event: Event) -> bytes:
    """An event as a command or a web address gets it: JSON on one line."""
    return json.dumps(event.to_dict()).encode() + b"\n"


@dataclass(frozen=True)
class Command:
    """A command of the shell, which gets the event on its standard input.  If it ends with 0 the
    event is taken.

    :ivar text: as a shell gets it
    """

    text: str

    def take(self, body: bytes, stopped: threading.Event) -> None:
        try:
            process = subprocess.Popen(["/bin/sh", "-c", self.text], stdin=subprocess.PIPE)
        except OSError as error:
            raise NotTakenError(f"the shell cannot be started: {error}") from error
        try:
            assert process.stdin is not None
            try:
                with process.stdin:
                    process.stdin.write(body)
            except BrokenPipeError:
                pass  # it does not want to know
            while process.poll() is None:
                if stopped.is_set():
                    raise NotTakenError("it was ended")
                try:
                    process.wait(_LOOK)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            _end(process)
        if process.returncode != 0:
            raise NotTakenError(f"the command ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _NoRedirects(HTTPRedirectHandler):
    """What is posted goes where it was to go, or nowhere."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = build_opener(_NoRedirects)


@dataclass(frozen=True)
class Webhook:
    """A web address that events are posted to.  With an answer of 200 to 299 the event is taken.

    :ivar url: http or https
    :ivar secret: shared with the receiver, who can tell by the signature that it is ours
    """

    url: str
    secret: bytes | None = None

    def take(self, body: bytes, _stopped: threading.Event) -> None:
        headers = {"Content-Type": "application/json"}
        if self.secret is not None:
            headers[SIGNATURE] = signature_of(body, self.secret)
        request = Request(self.url, data=body, headers=headers, method="POST")
        try:
            with _opener.open(request, timeout=ANSWER_TIMEOUT):
                return
        except HTTPError as error:
            error.close()
            raise NotTakenError(f"{_shown(self.url)} answered {error.code}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NotTakenError(f"{_shown(self.url)} cannot be reached: {reason}") from error


def signature_of(body: bytes, secret: bytes) -> str:
    """What the header ``X-Txstore-Signature`` says: HMAC-SHA256 of the body."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def web_address(text: str) -> str:
    """A web address that events can be posted to.

    :raises ValueError: it is none
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"should be an http or https address, but is {_shown(text)!r:.100}")
    return text


def _shown(url: str) -> str:
    """An address for logs: what is after the host may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"


def hand_over(
    feed: Feed[Delivery],
    target: Target,
    tell: Callable[[str], object] = logger.warning,
) -> None:
    """Hand all events of a feed to a target, each again and again until it is taken, with growing
    pauses.  Returns when the feed ends; ``feed.stop()`` ends it in the middle, from another thread
    too.  What was not taken comes again under the consumer's name.

    :param tell: told why an event is not taken
    """
    for event in feed:
        body, pause = body_of(event), FIRST_PAUSE
        while True:
            try:
                target.take(body, feed.stopped)
                break
            except NotTakenError as error:
                if feed.stopped.is_set():
                    return
                tell(
                    f"Event {event.sequence} ({event.kind}) was not taken: {error}."
                    f" Once more in {pause:g} s."
                )
            if feed.stopped.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
        event.done()
