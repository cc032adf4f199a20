"""``txstore.aio``: tasks that are cancelled at any moment, threads that are few, ends in order."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from seam import WatchedDisk
from support import claim

from txstore import FileStoreManager, aio
from txstore.errors import FieldError, OptionError, SequenceError, StoreClosedError
from txstore.testing import segment

Test = Callable[..., Coroutine[Any, Any, None]]


class GatedDisk(WatchedDisk):
    """Writes of staged bytes wait at a gate; how many wait there at once is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.reached = threading.Event(), threading.Event()
        self.armed = False  # opening a store writes, too
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def before(self, operation: str, *_: Any) -> None:
        if operation != "pwrite" or not self.armed:
            return
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.reached.set()
        assert self.gate.wait(60)
        with self._lock:
            self.inside -= 1


@pytest.fixture
def disk() -> Iterator[GatedDisk]:
    disk = GatedDisk()
    yield disk
    disk.gate.set()


async def at_the_gate(disk: GatedDisk) -> None:
    assert await asyncio.to_thread(disk.reached.wait, 60)


@asynccontextmanager
async def opened(storage: Path, **options: Any) -> AsyncIterator[aio.FileStoreManager]:
    async with aio.FileStoreManager(storage, durability="none", **options) as store:
        if isinstance(disk := options.get("disk"), GatedDisk):
            disk.armed = True
        yield store


several_times = pytest.mark.parametrize("times", [1, 3])


# What it does


def test_each_method_of_the_store_has_its_counterpart() -> None:
    def methods(of: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"}

    apart = {"inspect", "repair"}  # for the command; who looks needs no store of his own
    assert methods(aio.FileStoreManager) == methods(FileStoreManager) - apart
    for name in methods(aio.FileStoreManager):
        ours = inspect.signature(getattr(aio.FileStoreManager, name))
        assert list(ours.parameters.values()) == list(
            inspect.signature(getattr(FileStoreManager, name)).parameters.values()
        )


def test_it_does_what_the_store_does(storage: Path) -> None:
    async def run() -> None:
        async with opened(storage) as store:
            answer = await store.store_segment(segment(1, b"some", "one"))
            assert (answer.file_id, answer.segments_received) == ("one", 1)
            await store.store_segment(segment(1, b"other", "two"))
            assert [one.file_id for one in await store.transfers()] == ["one", "two"]
            assert [one.file_id for one in await store.transfers("t")] == ["two"]
            assert await store.count_transfers() == 2
            assert (await store.totals()).bytes == 9
            status = await store.status("two")
            assert status is not None
            assert status.bytes_received == 5
            await store.store_segment(segment(2, b"", "one", **claim(b"some", "file")))
            found = (storage / "file").stat()
            assert len(await store.stored_sha256("file", found) or "") == 64
            assert (await store.cancel("two")).segments_received == 1
            assert await store.expire() == []
            assert await store.consumers() == []
            assert not await store.remove_consumer("nobody")
        assert (storage / "file").read_bytes() == b"some"

    asyncio.run(run())


def test_errors_are_those_of_the_store(storage: Path) -> None:
    async def run() -> None:
        async with opened(storage) as store:
            with pytest.raises(SequenceError):
                await store.store_segment(segment(2, b"", "one"))
            with pytest.raises(FieldError):
                await store.status("a/b")

    asyncio.run(run())
    with pytest.raises(OptionError):
        aio.FileStoreManager(storage, threads=0)


def test_what_is_wrong_with_an_option_is_said_where_it_is_opened(storage: Path) -> None:
    async def run(use: Callable[[aio.FileStoreManager], Awaitable[object]]) -> None:
        with pytest.raises(OptionError):
            await use(aio.FileStoreManager(storage, durability="most"))

    asyncio.run(run(lambda store: store.__aenter__()))
    asyncio.run(run(lambda store: store.transfers()))


def test_what_is_logged_in_a_thread_belongs_to_the_task(storage: Path) -> None:
    current: ContextVar[str] = ContextVar("current", default="none")
    seen = set()

    class Looking(GatedDisk):
        def before(self, operation: str, *_: Any) -> None:
            if operation == "pwrite" and self.armed:
                seen.add(current.get())

    async def send(store: aio.FileStoreManager, file_id: str) -> None:
        current.set(file_id)
        await store.store_segment(segment(1, b"1", file_id))

    async def run() -> None:
        async with opened(storage, disk=Looking()) as store:
            await asyncio.gather(*(send(store, file_id) for file_id in ("one", "two")))

    asyncio.run(run())
    assert seen == {"one", "two"}


# Cancellation


@pytest.mark.promise(4)
@several_times
def test_a_call_that_has_begun_ends_before_its_task_does(
    storage: Path, disk: GatedDisk, times: int
) -> None:
    """Else a buffer that is used again, or a store that is closed, would be cut off under it."""

    async def run() -> None:
        async with opened(storage, disk=disk) as store:
            buffer = bytearray(b"some bytes")
            fields = segment(1, b"", "one").other_fields
            message = SimpleNamespace(payload=memoryview(buffer), other_fields=fields)
            task = asyncio.create_task(store.store_segment(message))
            await at_the_gate(disk)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not task.done()
            disk.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            buffer[:] = b"other text"
            # It was taken, once; its repeat gets the same answer.
            status = await store.status("one")
            assert status is not None
            assert (status.segments_received, status.bytes_received) == (1, 10)
            again = await store.store_segment(segment(1, b"some bytes", "one"))
            assert again.segments_received == 1
            await store.store_segment(segment(2, b"", "one", **claim(b"some bytes", "file")))

    asyncio.run(run())
    assert (storage / "file").read_bytes() == b"some bytes"


def test_a_call_that_has_not_begun_never_will(storage: Path, disk: GatedDisk) -> None:
    async def run() -> None:
        async with opened(storage, disk=disk, threads=1) as store:
            first = asyncio.create_task(store.store_segment(segment(1, b"1", "first")))
            await at_the_gate(disk)
            second = asyncio.create_task(store.store_segment(segment(1, b"2", "second")))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            disk.gate.set()
            await first
            assert await store.status("second") is None
            assert await store.count_transfers() == 1

    asyncio.run(run())


def test_a_timeout_is_one_although_it_has_to_wait(storage: Path, disk: GatedDisk) -> None:
    async def run() -> None:
        async with opened(storage, disk=disk) as store:
            waiting = asyncio.wait_for(store.store_segment(segment(1, b"1", "one")), 0.01)
            task = asyncio.create_task(waiting)
            await at_the_gate(disk)
            await asyncio.sleep(0.05)
            assert not task.done()
            disk.gate.set()
            with pytest.raises(asyncio.TimeoutError):
                await task
            assert await store.status("one") is not None

    asyncio.run(run())


def test_an_error_that_nobody_waits_for_any_more_is_not_complained_about(
    storage: Path, disk: GatedDisk
) -> None:
    complaints = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async with opened(storage, disk=disk) as store:
            task = asyncio.create_task(
                store.store_segment(segment(1, b"1", "one", **claim(b"other", "file")))
            )
            await asyncio.sleep(0)
            task.cancel()
            disk.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert complaints == []


# Threads


def test_no_more_calls_are_carried_out_at_once_than_asked_for(
    storage: Path, disk: GatedDisk
) -> None:
    async def run() -> None:
        async with opened(storage, disk=disk, threads=3) as store:
            before = threading.active_count()
            calls = [store.store_segment(segment(1, b"1", f"id-{n}")) for n in range(10)]
            waiting = asyncio.gather(*calls)
            while disk.inside < 3:
                await asyncio.sleep(0.001)
            assert threading.active_count() - before <= 3
            disk.gate.set()
            await waiting
            assert disk.most == 3
            assert await store.count_transfers() == 10

    asyncio.run(run())


def test_a_child_of_a_fork_has_threads_of_its_own(storage: Path) -> None:
    code = f"""
import asyncio, os
from txstore import aio
from txstore.testing import segment

async def send(store, file_id):
    await store.store_segment(segment(1, b"1", file_id))
    return [one.file_id for one in await store.transfers()]

store = aio.FileStoreManager({str(storage)!r}, durability="none")
print(asyncio.run(send(store, "parent")), flush=True)
if (child := os.fork()) == 0:
    print(asyncio.run(send(store, "child")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
asyncio.run(store.close())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("['parent']\n['parent', 'child']\n", 0), done.stderr


# Ends


def test_after_its_end_each_call_is_an_error(storage: Path) -> None:
    async def run() -> None:
        store = aio.FileStoreManager(storage, durability="none")
        async with store:
            await store.transfers()
        for call in (store.transfers(), store.__aenter__(), store.cancel("one")):
            with pytest.raises(StoreClosedError):
                await call
        await store.close()
        never_opened = aio.FileStoreManager(storage / "never")
        await never_opened.close()
        with pytest.raises(StoreClosedError):
            await never_opened.transfers()

    asyncio.run(run())
    assert not (storage / "never").exists()


@several_times
def test_closing_waits_for_what_has_begun_and_keeps_out_what_has_not(
    storage: Path, disk: GatedDisk, times: int
) -> None:
    async def run() -> None:
        store = aio.FileStoreManager(storage, durability="none", disk=disk, threads=1)
        await store.transfers()
        disk.armed = True
        begun = asyncio.create_task(store.store_segment(segment(1, b"1", "begun")))
        await at_the_gate(disk)
        not_begun = asyncio.create_task(store.store_segment(segment(1, b"1", "not begun")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        for _ in range(times - 1):  # also if its task is cancelled
            await asyncio.sleep(0.01)
            closing.cancel()
        await asyncio.sleep(0.01)
        assert not closing.done()
        disk.gate.set()
        assert (await begun).segments_received == 1
        with pytest.raises(StoreClosedError):
            await not_begun
        await asyncio.gather(closing, return_exceptions=True)

    asyncio.run(run())
    with FileStoreManager(storage) as store:
        assert [one.file_id for one in store.transfers()] == ["begun"]


def test_one_that_is_being_opened_is_closed_afterwards(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = threading.Event(), threading.Event()
    closed = []

    class Slow(FileStoreManager):
        def __init__(self, *args: Any, **options: Any) -> None:
            opening.set()
            assert go_on.wait(60)
            super().__init__(*args, **options)

        def close(self) -> None:
            closed.append(self)
            super().close()

    async def run() -> None:
        monkeypatch.setattr("txstore.aio.sync.FileStoreManager", Slow)
        store = aio.FileStoreManager(storage, durability="none")
        call = asyncio.create_task(store.transfers())
        assert await asyncio.to_thread(opening.wait, 60)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(call, closing, return_exceptions=True)

    asyncio.run(run())
    assert len(closed) == 1


# Events


def test_events_come_to_whoever_iterates(storage: Path) -> None:
    async def run() -> None:
        async with opened(storage) as store:
            for name in ("one", "two"):
                await store.store_segment(segment(1, b"1", name, **claim(b"1", name)))
            assert [event.file_id async for event in store.events()] == ["one", "two"]
            async with store.events("index") as events:
                async for event in events:
                    await events.done(event)
                    break
            # Its turn is over, and the second one was not done with.
            assert [event.file_id async for event in store.events("index")] == ["two"]
            ended = store.events("index")
            await ended.aclose()
            await ended.aclose()
            assert [event async for event in ended] == []

    asyncio.run(run())


def test_a_wait_for_events_that_is_cancelled_ends_and_keeps_no_thread(storage: Path) -> None:
    before = threading.enumerate()

    async def run() -> None:
        async with opened(storage, threads=1) as store:
            seen = []

            async def follow() -> None:
                events = store.events("index", follow=True)
                async for event in events:
                    await events.done(event)
                    seen.append(event.file_id)

            for name in ("one", "two"):
                task = asyncio.create_task(follow())
                await store.store_segment(segment(1, b"1", name, **claim(b"1", name)))
                while name not in seen:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert seen == ["one", "two"]

    asyncio.run(run())
    for thread in set(threading.enumerate()) - set(before):
        if thread.name.startswith("txstore-aio"):
            thread.join(60)
            assert not thread.is_alive()
