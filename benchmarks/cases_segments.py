"""One transfer, segment after segment; and whole files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from benchmarks.measure import FLOOR, TXSTORE, UNIT, UPSTREAM, Case, Ratio, Subject
from benchmarks.subjects import (
    KIB,
    MIB,
    Files,
    FloorFiles,
    FloorSegments,
    SameFlushes,
    Segments,
    txstore,
    upstream,
)
from benchmarks.together import Threads
from txstore.options import Level

LEVELS: tuple[Level, ...] = ("none", "file", "segment")
SIZES = {4 * KIB: "4 KiB", 50 * KIB: "50 KiB", MIB: "1 MiB"}
_NONE_LIMITS = {4 * KIB: 3.0, 50 * KIB: 1.7, MIB: 1.0}


def cases(quick: bool) -> list[Case]:
    return [
        *(_segments(level, size, quick) for level in LEVELS for size in SIZES),
        *(_big_files(segment, quick) for segment in (50 * KIB, MIB)),
        *(_small_files(level, quick) for level in LEVELS),
        _small_files_in_threads(quick),
    ]


def _segments(level: Level, size: int, quick: bool) -> Case:
    batch = 8 if level == "segment" else max(4, 20 * 50 * KIB // size // 4)

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        return {
            TXSTORE: Segments(txstore(folder / "ours", level), size, batch),
            UPSTREAM: Segments(upstream(folder / "theirs"), size, batch),
            FLOOR: FloorSegments(folder / "floor", size, batch, level),
        }

    ratios = [
        Ratio(TXSTORE, UPSTREAM, _NONE_LIMITS[size] if level == "none" else None),
        Ratio(TXSTORE, FLOOR),
    ]
    if level == "segment":
        limits = (2.5, 2.0) if size == 50 * KIB else (None, None)
        ratios = [Ratio(TXSTORE, UNIT, *limits), Ratio(FLOOR, UNIT), *ratios]
    return Case(
        f"segments-{level}-{SIZES[size].replace(' ', '')}",
        f"level {level!r}, segments of {SIZES[size]}",
        "segment",
        prepare,
        rounds=12 if quick else 120 if size < MIB else 50,
        ratios=tuple(ratios),
        flushes=level == "segment",
    )


def _big_files(segment: int, quick: bool) -> Case:
    def prepare(folder: Path, stack: ExitStack) -> dict[str, Subject]:
        flushes = SameFlushes(folder / "log")
        stack.callback(flushes.close)
        ours, theirs, bare = folder / "ours", folder / "theirs", folder / "bare"
        size, batch = 8 * MIB, 1
        return {
            TXSTORE: Files(txstore(ours, "file"), ours, size, segment, batch),
            "upstream + flushes": Files(upstream(theirs), theirs, size, segment, batch, flushes),
            UPSTREAM: Files(upstream(bare), bare, size, segment, batch),
        }

    return Case(
        f"files-8MiB-{SIZES[segment].replace(' ', '')}",
        f"level 'file', files of 8 MiB in segments of {SIZES[segment]}",
        "file",
        prepare,
        rounds=4 if quick else 40,
        ratios=(
            Ratio(TXSTORE, "upstream + flushes", 1.05),
            Ratio(TXSTORE, UPSTREAM),
        ),
        flushes=True,
    )


def _small_files(level: Level, quick: bool) -> Case:
    size, batch = 10 * KIB, 8

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        ours, theirs = folder / "ours", folder / "theirs"
        return {
            TXSTORE: Files(txstore(ours, level), ours, size, size, batch),
            UPSTREAM: Files(upstream(theirs), theirs, size, size, batch),
            FLOOR: FloorFiles(folder / "floor", size, batch, level != "none"),
        }

    return Case(
        f"small-files-{level}",
        f"level {level!r}, files of 10 KiB in one segment",
        "file",
        prepare,
        rounds=8 if quick else 80,
        ratios=(
            Ratio(TXSTORE, FLOOR, 1.3 if level == "segment" else None),
            Ratio(TXSTORE, UPSTREAM),
        ),
        flushes=level != "none",
    )


def _small_files_in_threads(quick: bool) -> Case:
    size, batch, count = 10 * KIB, 8, 8

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        ours = folder / "ours"
        store = txstore(ours, "segment")
        files = [Files(store, ours, size, size, batch) for _ in range(count)]
        return {
            f"txstore, {count} threads": Threads([one.step for one in files], batch, store.close),
            FLOOR: FloorFiles(folder / "floor", size, batch, True),
        }

    return Case(
        "small-files-segment-threads",
        f"level 'segment', files of 10 KiB in one segment, {count} threads",
        "file",
        prepare,
        rounds=8 if quick else 60,
        ratios=(Ratio(f"txstore, {count} threads", FLOOR, 0.5),),
        flushes=True,
    )
