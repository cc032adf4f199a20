"""Opening a store, taking up a transfer, the cost of a far offset, and memory."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure import TXSTORE, UPSTREAM, Bound, Case, Ratio, Subject
from benchmarks.subjects import (
    KIB,
    MIB,
    Calls,
    Segments,
    Store,
    close,
    last,
    payloads,
    plain,
    txstore,
    upstream,
)
from txstore import digest
from txstore.disk import Disk
from txstore.options import Level

_GIB = 1024 * MIB


def cases(quick: bool) -> list[Case]:
    return [_opening(quick), _resuming(quick), _far_offset(quick), _memory(quick)]


# --- opening -------------------------------------------------------------------------------------


def _opening(quick: bool) -> Case:
    unfinished, finished = (500, 1_000) if quick else (10_000, 100_000)
    many, remembered = f"{unfinished:,} unfinished", f"{finished:,} completions"

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        _apart(_fill, folder / "empty", 0, 0)
        _apart(_fill, folder / "unfinished", unfinished, 0)
        _apart(_fill, folder / "finished", 0, finished)
        return {
            "fresh": Calls(_Fresh(folder / "fresh", partial(txstore, level="segment"))),
            "existing": Calls(partial(_open, folder / "empty")),
            many: Calls(partial(_open, folder / "unfinished")),
            remembered: Calls(partial(_open, folder / "finished")),
            f"{UPSTREAM}, fresh": Calls(_Fresh(folder / "theirs", upstream)),
        }

    return Case(
        "opening",
        "opening a store",
        "opening",
        prepare,
        rounds=6 if quick else 60,
        ratios=(Ratio(many, "existing"), Ratio(remembered, "existing")),
        bounds=tuple(Bound(name, "mean", 0.003) for name in ("existing", many, remembered)),
        scale=(1e3, "ms"),
    )


def _open(folder: Path) -> float:
    start = time.perf_counter()
    store = txstore(folder, "segment")
    taken = time.perf_counter() - start
    store.close()
    return taken


class _Fresh:
    """Opens a store in a new folder each time."""

    def __init__(self, folder: Path, make: Callable[[Path], Store]) -> None:
        folder.mkdir()
        self._folder, self._make, self._count = folder, make, 0

    def __call__(self) -> float:
        self._count += 1
        folder = self._folder / str(self._count)
        start = time.perf_counter()
        store = self._make(folder)
        taken = time.perf_counter() - start
        close(store)
        return taken


def _fill(folder: Path, unfinished: int, finished: int) -> None:
    with txstore(folder, "none") as store:
        for number in range(unfinished):
            store.store_segment(plain(f"unfinished-{number}", 1, b"x"))
        _store_files(store, finished)


def _store_files(store: Store, count: int) -> None:
    digests = {one: _sha256(bytes([one])) for one in range(256)}
    for number in range(count):
        byte = number % 256
        store.store_segment(
            last(f"file-{number}", 1, bytes([byte]), f"{number % 100}", 1, digests[byte])
        )


def _sha256(data: bytes) -> str:
    hasher = digest.new()
    hasher.update(data)
    return hasher.digest().hex()


# --- taking up a transfer ------------------------------------------------------------------------


def _resuming(quick: bool) -> Case:
    """A new worker opens the store and takes the next segment of a big file."""
    whole = 32 * MIB if quick else 512 * MIB
    shown = f"of {whole // MIB} MiB"

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        subjects: dict[str, Subject] = {}
        wanted: tuple[tuple[str, float, Level, bool], ...] = (
            (f"at 1 % {shown}", 0.01, "segment", False),
            (f"at 99 % {shown}", 0.99, "segment", False),
            ("at 1 %, after a power loss", 0.01, "file", True),
            ("at 99 %, after a power loss", 0.99, "file", True),
        )
        for name, part, level, reboot in wanted:
            place = folder / name.replace(" ", "-")
            _apart(_send, place, level, int(whole * part) // MIB)
            subjects[name] = Calls(_Resumed(place, level, int(whole * part) // MIB, reboot), 1)
        return subjects

    return Case(
        "resuming",
        "a new worker opens the store and takes the next segment (1 MiB)",
        "taking up",
        prepare,
        rounds=3 if quick else 25,
        ratios=(
            Ratio(f"at 99 % {shown}", f"at 1 % {shown}"),
            Ratio("at 99 %, after a power loss", "at 1 %, after a power loss"),
        ),
        scale=(1e3, "ms"),
    )


def _send(folder: Path, level: Level, segments: int) -> None:
    store, parts = txstore(folder, level), payloads(MIB)
    for number in range(1, segments + 1):
        store.store_segment(plain("big", number, parts[number % len(parts)]))
    os._exit(0)  # as a crash would end it


class _Booted(Disk):
    def __init__(self, boot: str) -> None:
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


class _Resumed:
    def __init__(self, folder: Path, level: Level, segments: int, reboot: bool) -> None:
        self._folder, self._level, self._segments = folder, level, segments
        self._reboot, self._payload = reboot, os.urandom(MIB)

    def __call__(self) -> float:
        self._segments += 1
        # Another boot each time: what was not flushed is verified.
        disk = _Booted(f"boot-{self._segments}") if self._reboot else Disk()
        start = time.perf_counter()
        store = txstore(self._folder, self._level, disk)
        store.store_segment(plain("big", self._segments, self._payload))
        taken = time.perf_counter() - start
        store.close()
        return taken


# --- a far offset --------------------------------------------------------------------------------


def _far_offset(quick: bool) -> Case:
    size, batch = 50 * KIB, 20

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        near = Segments(txstore(folder / "near", "none"), size, batch, length=4 * _GIB)
        store = txstore(folder / "far", "none")
        store.store_segment(plain("far", 1, bytes(size)))
        store.close()
        _apart(_move_far, folder / "far", 10 * _GIB)
        return {
            "at 0": near,
            "at 10 GiB": Segments(
                txstore(folder / "far", "none"), size, batch, length=4 * _GIB, going_on="far"
            ),
        }

    return Case(
        "far-offset",
        "level 'none', segments of 50 KiB, far into a (sparse) file",
        "segment",
        prepare,
        rounds=12 if quick else 80,
        ratios=(Ratio("at 10 GiB", "at 0", 1.05),),
    )


def _move_far(folder: Path, offset: int) -> None:
    """Have a store's only transfer be that many bytes long: a hole, and a hash that says so."""
    hasher = digest.new()
    hasher.update(bytes(64))
    hasher.total = offset
    with closing(sqlite3.connect(folder / ".workdir" / "journal.db")) as journal:
        journal.execute('UPDATE transfer SET "offset" = ?, state = ?', (offset, hasher.save()))
        journal.commit()
        (name,) = journal.execute("SELECT staging FROM transfer").fetchone()
    os.truncate(folder / ".workdir" / "staging" / name, offset)


# --- memory --------------------------------------------------------------------------------------


def _memory(quick: bool) -> Case:
    transfers = 3_000 if quick else 100_000

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        return {TXSTORE: Calls(partial(_apart, _kept, folder / "store", transfers), 1)}

    return Case(
        "memory",
        f"memory kept for each finished transfer, by a manager that has seen {transfers:,}",
        "transfer",
        prepare,
        rounds=1,
        # Whatever were kept would be a pointer at least.
        bounds=(Bound(TXSTORE, "mean", 8.0),),
        unit=False,
        scale=(1.0, "bytes"),
    )


def _kept(folder: Path, transfers: int) -> float:
    """Bytes by which the process grew for each transfer, after it had warmed up."""
    warm = max(6_000, transfers // 10)  # SQLite's own cache fills, too
    with txstore(folder, "none") as store:
        _store_files(store, warm)
        before = _resident()
        _store_files(store, transfers)
        return max(0.0, (_resident() - before) / transfers)


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- helpers -------------------------------------------------------------------------------------


def _apart(call: Callable[..., float | None], *args: object) -> float:
    """Run something in a process of its own, which leaves nothing behind in this one."""
    context = get_context("spawn")
    if call is _send:  # it ends its process itself
        process = context.Process(target=call, args=args)
        process.start()
        process.join()
        return 0.0
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, *args).result() or 0.0
