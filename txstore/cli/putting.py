"""What ``put`` does with each of its files, one after the other or several at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from txstore.cli.batch import Batch, Outcome, Status
from txstore.cli.interrupts import Interruption
from txstore.cli.pace import Pace
from txstore.cli.problems import EXPECTED, CommandError, explain
from txstore.cli.put import Acked, NameTaken, Put, Stored
from txstore.cli.sources import Target, source_at
from txstore.cli.stream import STDIN, Stream
from txstore.source import Source

if TYPE_CHECKING:
    from txstore import FileStoreManager

#: Bytes of a segment where none are said, and how many segments a file then has.
_SMALLEST, _LARGEST, _SEGMENTS = 2**20, 2**24, 128


@dataclass(frozen=True)
class How:
    """How files are put.

    :ivar segment_size: bytes; ``None``: what fits each
    :ivar preserve: whether what is stored has its source's mode and time
    :ivar replace: whether a file that has the name is replaced
    :ivar recursive: whether folders are taken apart; else they are an error
    """

    segment_size: int | None
    preserve: bool
    replace: bool
    recursive: bool

    def segment_of(self, size: int | None) -> int:
        """Bytes of a segment: each is flushed, and what is flushed is not sent again.

        :param size: of the file; ``None``: not known.  Then nothing is kept of what is cut off.
        """
        if self.segment_size is not None:
            return self.segment_size
        return _LARGEST if size is None else min(max(size // _SEGMENTS, _SMALLEST), _LARGEST)


class Putting:
    """Puts files into one store, which is opened for the first file that can be read.

    :param opened: opens the store
    :param stack: closes it
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[FileStoreManager]],
        stack: ExitStack,
        how: How,
        pace: Pace,
        interruption: Interruption,
    ) -> None:
        self._opened, self._stack, self._how = opened, stack, how
        self._pace, self._interruption = pace, interruption
        self._store: FileStoreManager | None = None

    def may_go_ahead(self, target: Target) -> bool:
        """Whether a file can be put before its turn: that takes one step, which nobody would see or
        stop."""
        if self._store is None or self._interruption.came or self._pace.is_bounded:
            return False
        return target.size is not None and target.size <= self._how.segment_of(target.size)

    def put(self, target: Target, batch: Batch | None = None) -> Outcome:
        """Put a file.

        :param batch: shows its steps, between which Ctrl-C stops it; ``None``: it is put before its
            turn, by any thread
        :raises KeyboardInterrupt: Ctrl-C was pressed
        :raises click.ClickException: the store cannot be opened
        """
        outcome = Outcome(target.path, target.name, "failed", target.size)
        try:
            with self._source(target) as source:
                if self._store is None:
                    self._store = self._stack.enter_context(self._opened())
                if batch is not None:
                    self._interruption.check()
                way = self._way(self._store, target, source)
                return self._carry_out(way, batch, outcome)
        except (*EXPECTED, MemoryError) as error:
            return replace(outcome, error=explain(error))

    @contextmanager
    def _source(self, target: Target) -> Iterator[Source | None]:
        """The source; ``None`` for standard input."""
        if target.path == STDIN:
            yield None
            return
        if not self._how.recursive and os.path.isdir(target.path):
            raise CommandError(f"{target.path!r}: Is a directory. -r stores what is in it.")
        with source_at(target.path, target.name) as source:
            yield source

    def _way(self, store: FileStoreManager, target: Target, source: Source | None) -> Put | Stream:
        how = self._how
        size = self._pace.segment_size(how.segment_of(target.size))
        if source is None:
            return Stream(store, target.name, size, self._interruption, replace=how.replace)
        return Put(store, source, size, preserve=how.preserve, replace=how.replace)

    def _carry_out(self, way: Put | Stream, batch: Batch | None, outcome: Outcome) -> Outcome:
        started = time.monotonic()
        sent = 0
        status: Status = "stored"
        self._pace.wait()
        # Closed at once where it is left: what it has to let go of needs the store.
        with closing(way.run()) as events:
            for event in events:
                if isinstance(event, Acked | Stored):
                    sent += event.sent
                    self._pace.sent(event.sent)
                if isinstance(event, Stored):
                    if event.already:
                        status = "already_stored"
                    elif event.by_another:
                        status = "stored_by_another"
                    break
                if isinstance(event, NameTaken):
                    return replace(outcome, status="name_taken", sent=sent)
                if batch is not None:
                    batch.show(event)
                    self._interruption.check()
                    self._pace.wait()
        seconds = time.monotonic() - started
        return replace(
            outcome,
            status=status,
            size=way.size,
            sent=sent,
            seconds=round(seconds, 6),
            sha256=way.sha256(),
        )
