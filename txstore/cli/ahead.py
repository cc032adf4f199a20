"""Small files are stored several at once: while one is flushed, the next ones are on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: More than this many need processors, not flushes.
_AT_ONCE = 4


class Ahead(Generic[T, R]):
    """Does some work for things ahead of their turn, in threads.  Used by one thread.

    :param things: in the order of their turns
    :param work: done for one of them; it raises nothing
    :param may: whether it can be done ahead, as things are now
    """

    def __init__(
        self, things: Iterable[T], work: Callable[[T], R], may: Callable[[T], bool]
    ) -> None:
        self._things, self._work, self._may = deque(things), work, may
        self._begun: deque[Future[R]] = deque()
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def turn(self) -> R | None:
        """The next thing's turn: what its work gave; ``None`` where it was not done ahead."""
        while (
            len(self._begun) < _AT_ONCE
            and len(self._begun) < len(self._things)
            and self._may(thing := self._things[len(self._begun)])
        ):
            self._begun.append(self._pool.submit(self._work, thing))
        self._things.popleft()
        return self._begun.popleft().result() if self._begun else None

    def __enter__(self) -> Ahead[T, R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
