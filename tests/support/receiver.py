"""A web server on this machine that events are posted to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Post(NamedTuple):
    """What was posted."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Keeps what it got, and answers as it is told.

    :ivar answers: codes for the next posts; then 204
    :ivar posts: what came
    """

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.posts: list[Post] = []
        self.url = ""

    def take(self, post: Post) -> int:
        self.posts.append(post)
        return self.answers.pop(0) if self.answers else 204


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver at ``url``."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = receiver.take(Post(self.path, dict(self.headers), body))
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/events"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
