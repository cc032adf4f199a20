"""``FileStoreManager`` for asyncio: each call runs in a thread, of which there are only so many.

A thread cannot be stopped, so a call that has begun is not cut off by a cancellation: the task
waits for its end, and then ends with ``CancelledError``.  What the call used (a buffer that is used
again, the store that is closed) is in nobody's hands any more when the task goes on.  Whether the
segment was taken the status tells; sent again it gets the same answer, as ever.  A call that has
not begun never will.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from txstore import store as sync
from txstore.errors import StoreClosedError, StoreNotPicklableError
from txstore.events.feed import Delivery, Feed
from txstore.options import count
from txstore.protocol.catalogue import CatalogueEntry
from txstore.protocol.event import Consumer, Event
from txstore.protocol.request import FileStoreSegmentResult, Message
from txstore.protocol.status import Totals, TransferStatus
from txstore.protocol.stored import OpenedFile, StoredFile

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self  # which comes with SQLAlchemy

__all__ = ["EventStream", "FileStoreManager"]

T = TypeVar("T")
E = TypeVar("E", bound=Event)

_NAME = "txstore-aio"
#: Entries of the catalogue that one call reads.
_MANY = 500


class FileStoreManager:
    """The store for tasks of an event loop; each method does what that of
    ``txstore.store.FileStoreManager`` does, and raises what it raises.

    Any number of tasks may use it at once, and any number of managers, in whatever threads and
    processes, one pair of folders.  ``async with`` opens it, and closes it at the end; otherwise
    the first call opens it.

    :param storage_dir: folder below which files are stored
    :param working_dir: folder for unfinished transfers and the journal
    :param threads: how many calls are carried out at once; others wait for their turn
    :param options: those of ``txstore.store.FileStoreManager``
    :raises OptionError: ``threads`` is no whole number from 1.  What else is wrong is said where
        the store is opened
    """

    def __init__(
        self,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        threads: int = 8,
        **options: Any,
    ) -> None:
        self._open = partial(sync.FileStoreManager, storage_dir, working_dir, **options)
        self._count = count("threads", threads)
        self._manager: sync.FileStoreManager | None = None
        self._closed = False
        self._begin()

    # --- the protocol ------------------------------------------------------------------------

    async def store_segment(self, message: Message) -> FileStoreSegmentResult:
        """Take one message of a transfer.

        Cancelled, it ends first if it has begun: see the head of this module.
        """
        return await self._call(lambda store: store.store_segment(message))

    async def cancel(self, file_id: str) -> FileStoreSegmentResult:
        """Drop an unfinished transfer."""
        return await self._call(lambda store: store.cancel(file_id))

    # --- looking -----------------------------------------------------------------------------

    async def transfers(self, prefix: str = "") -> list[TransferStatus]:
        """The unfinished transfers, oldest first."""
        return await self._call(lambda store: store.transfers(prefix))

    async def count_transfers(self) -> int:
        """How many unfinished transfers there are."""
        return await self._call(lambda store: store.count_transfers())

    async def totals(self) -> Totals:
        """What all unfinished transfers have together."""
        return await self._call(lambda store: store.totals())

    async def status(self, file_id: str) -> TransferStatus | None:
        """One transfer, settled first; ``None``: not known."""
        return await self._call(lambda store: store.status(file_id))

    async def stored(self, after: str | None = None, limit: int | None = None) -> list[StoredFile]:
        """The stored files, from after a name on."""
        return await self._call(lambda store: [*store.stored(after, limit)])

    async def open_stored(self, name: str) -> OpenedFile:
        """A stored file, open for reading: its ``file`` is read by threads, not by tasks."""
        return await self._call(lambda store: store.open_stored(name))

    async def stored_sha256(self, name: str, found: os.stat_result) -> str | None:
        """The hash of a stored file, as far as it is known without reading it."""
        return await self._call(lambda store: store.stored_sha256(name, found))

    async def catalogue(self, after: str = "") -> AsyncIterator[CatalogueEntry]:
        """What was stored and is there still, in the order of the names.

        :param after: ``key`` of the entry after which to begin
        """
        while True:
            begin = partial(_some, after)
            entries = await self._call(begin)
            for one in entries:
                yield one
            if len(entries) < _MANY:
                return
            after = entries[-1].key

    # --- events ------------------------------------------------------------------------------

    @overload
    def events(self, consumer: str, *, follow: bool = False) -> EventStream[Delivery]: ...

    @overload
    def events(self, consumer: None = None, *, follow: bool = False) -> EventStream[Event]: ...

    def events(
        self, consumer: str | None = None, *, follow: bool = False
    ) -> EventStream[Delivery] | EventStream[Event]:
        """What became of transfers, in order::

            async with store.events(consumer="index", follow=True) as events:
                async for event in events:
                    await add_to_index(event.name)
                    await events.done(event)

        It has a thread of its own as long as it is iterated.
        """
        if consumer is None:
            return EventStream(self, lambda store: store.events(follow=follow))
        return EventStream(self, lambda store: store.events(consumer, follow=follow))

    async def consumers(self) -> list[Consumer]:
        """The registered consumers of events, by name."""
        return await self._call(lambda store: store.consumers())

    async def remove_consumer(self, name: str) -> bool:
        """Forget a consumer; ``False``: there is none of that name."""
        return await self._call(lambda store: store.remove_consumer(name))

    # --- ends --------------------------------------------------------------------------------

    async def expire(self) -> list[str]:
        """Drop what has expired; the ids."""
        return await self._call(lambda store: store.expire())

    async def close(self) -> None:
        """Wait for calls that have begun, then let go of everything.  May be called more than once.

        Calls that have not begun get ``StoreClosedError``.
        """
        self._closed = True
        # Not in one of those threads: all of them may be busy.
        with ThreadPoolExecutor(1, f"{_NAME}-close") as closing:
            await _ended(closing.submit(self._close))
        self._threads.shutdown(wait=False)

    def __reduce__(self) -> NoReturn:
        raise StoreNotPicklableError

    async def __aenter__(self) -> Self:
        await self._call(lambda _: None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- threads -----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Have threads of this process: a fork copies none."""
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(self._count, _NAME)

    async def _call(self, act: Callable[[sync.FileStoreManager], T]) -> T:
        if self._closed:
            raise StoreClosedError
        if self._pid != os.getpid():
            self._begin()
        # As `asyncio.to_thread` does: what logs in the thread belongs to this task.
        context = copy_context()
        return await _ended(self._threads.submit(context.run, lambda: act(self._opened())))

    def _opened(self) -> sync.FileStoreManager:
        """The manager; in a thread, since opening waits for the disk."""
        with self._opening:
            if self._closed:
                raise StoreClosedError
            if self._manager is None:
                self._manager = self._open()
            return self._manager

    def _close(self) -> None:
        with self._opening:  # or it might just be opened
            if self._manager is not None:
                self._manager.close()


class EventStream(AsyncIterator[E], Generic[E]):
    """The events of a store for one task.  A wait for the next one that is cancelled ends it.

    ``async with`` ends it, too, and the consumer's turn, so that another process may go on.
    """

    def __init__(
        self, store: FileStoreManager, begin: Callable[[sync.FileStoreManager], Feed[E]]
    ) -> None:
        self._store, self._begin = store, begin
        self._feed: Feed[E] | None = None
        self._over = False
        # Its own: one that waits for events would keep a thread from all other calls.
        self._thread = ThreadPoolExecutor(1, f"{_NAME}-events")

    async def __anext__(self) -> E:
        if self._feed is None and not self._over:
            self._feed = await self._store._call(self._begin)
        if self._feed is None:
            raise StopAsyncIteration
        try:
            found = await _ended(self._thread.submit(next, self._feed, None), self._feed.stop)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if found is None:
            await self.aclose()
            raise StopAsyncIteration
        return found

    async def done(self, event: Delivery) -> None:
        """Be done with an event, and all before it: they do not come again under this name."""
        await self._store._call(lambda _: event.done())

    async def aclose(self) -> None:
        """End it.  May be called more than once."""
        feed, self._feed, self._over = self._feed, None, True
        if feed is not None:
            feed.stop()
            await _ended(self._thread.submit(feed.close))
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _some(after: str, store: sync.FileStoreManager) -> list[CatalogueEntry]:
    return list(islice(store.catalogue(after), _MANY))


async def _ended(running: Future[T], hurry: Callable[[], object] = lambda: None) -> T:
    """The result of a thread's work, which has ended when this returns, whatever happens.

    :param hurry: has it end soon
    """
    waited = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(waited)
    except asyncio.CancelledError:
        if not running.cancel():
            hurry()
            while not waited.done():
                try:
                    await asyncio.wait([waited])
                except asyncio.CancelledError:
                    continue  # once more, and no reason to leave it alone
            # It is heard of, and nobody is left to tell of an error.
            waited.exception()
        raise
