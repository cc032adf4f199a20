"""Several workers at the same time: threads, processes, and how evenly they are served."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.measure import TXSTORE, UPSTREAM, Bound, Case, Ratio, Subject
from benchmarks.subjects import KIB, MIB, Segments, txstore
from benchmarks.together import InTurn, Processes, Threads, segments_of_its_own
from txstore.options import Level

_SIZE = 50 * KIB


def cases(quick: bool) -> list[Case]:
    return [
        *(_threads(level, quick) for level in ("none", "segment")),
        *(_processes(level, _SIZE, quick) for level in ("none", "segment")),
        _processes("none", MIB, quick),
        *(_in_turn(level, quick) for level in ("none", "segment")),
        *(_fairness(count, quick) for count in (2, 8)),
    ]


def _threads(level: Level, quick: bool) -> Case:
    batch = 40 if level == "none" else 16

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        subjects: dict[str, Subject] = {}
        for count in (1, 4, 8):
            store = txstore(folder / str(count), level)
            steps = [Segments(store, _SIZE, 1).step for _ in range(count)]
            subjects[_named(count, "thread")] = Threads(steps, batch, store.close)
        return subjects

    return Case(
        f"threads-{level}",
        f"level {level!r}, 50 KiB, each thread a transfer",
        "segment, of all threads together",
        prepare,
        rounds=5 if quick else 40,
        ratios=tuple(
            Ratio(
                _named(count, "thread"),
                _named(1, "thread"),
                2.0 if (level, count) == ("segment", 8) else None,
                rates=True,
            )
            for count in (4, 8)
        ),
        flushes=level == "segment",
    )


def _processes(level: Level, size: int, quick: bool) -> Case:
    batch = (16 if level == "segment" else 200) * _SIZE // size or 1

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        def crew(count: int, name: str, level: Level | None) -> Processes:
            makers = [
                partial(
                    segments_of_its_own,
                    folder / f"{name}-{count}" / (str(one) if level is None else "store"),
                    level,
                    size,
                )
                for one in range(count)
            ]
            return Processes(makers, batch)

        return {
            f"{TXSTORE}, {_named(1, 'process')}": crew(1, "ours", level),
            f"{TXSTORE}, {_named(2, 'process')}": crew(2, "ours", level),
            f"{UPSTREAM}, {_named(1, 'process')}": crew(1, "theirs", None),
            f"{UPSTREAM}, {_named(2, 'process')} apart": crew(2, "theirs", None),
        }

    two, one = f"{TXSTORE}, {_named(2, 'process')}", f"{TXSTORE}, {_named(1, 'process')}"
    theirs = f"{UPSTREAM}, {_named(1, 'process')}"
    target = 1.65 if level == "none" and size == _SIZE else None
    return Case(
        f"processes-{level}-{'50KiB' if size == _SIZE else '1MiB'}",
        f"level {level!r}, {'50 KiB' if size == _SIZE else '1 MiB'}, each process a transfer",
        "segment, of all processes together",
        prepare,
        rounds=5 if quick else 40,
        ratios=(
            Ratio(two, theirs, target, rates=True),
            Ratio(two, one, rates=True),
            Ratio(f"{UPSTREAM}, {_named(2, 'process')} apart", theirs, rates=True),
        ),
        flushes=level == "segment",
    )


def _in_turn(level: Level, quick: bool) -> Case:
    batch = 40 if level == "none" else 16

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        return {
            _named(1, "process"): InTurn(folder / "one", level, _SIZE, batch, 1),
            "2 processes in turn": InTurn(folder / "two", level, _SIZE, batch, 2),
        }

    return Case(
        f"in-turn-{level}",
        f"level {level!r}, 50 KiB, segments of one transfer taken in turn",
        "segment",
        prepare,
        rounds=5 if quick else 40,
        ratios=(Ratio("2 processes in turn", _named(1, "process")),),
        flushes=level == "segment",
    )


def _fairness(count: int, quick: bool) -> Case:
    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        makers = [partial(segments_of_its_own, folder / "store", "none", _SIZE)] * count
        return {f"{count} processes": Processes(makers, 0, seconds=1.0 if quick else 20.0)}

    name = f"{count} processes"
    return Case(
        f"fairness-{count}",
        f"level 'none', 50 KiB, {count} processes without a pause",
        "segment",
        prepare,
        rounds=1,
        bounds=(Bound(name, "p999", 0.050), Bound(name, "longest", 0.500)),
        unit=False,
    )


def _named(count: int, what: str) -> str:
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count} {what}{plural}"
