"""The command ``txstore``: how soon it begins, many small files, and one large file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.measure import FLOOR, TXSTORE, Case, Ratio, Subject
from benchmarks.subjects import KIB, MIB, Calls, FloorFiles

_CLICK = "python -c 'import click'"
_COPY = "cp, flush, SHA-256"


def cases(quick: bool) -> list[Case]:
    return [_start(quick), _many(quick), _large(quick)]


def _timed(*arguments: object) -> float:
    """The seconds that a Python program takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _start(quick: bool) -> Case:
    def prepare(_: Path, __: ExitStack) -> dict[str, Subject]:
        return {
            "txstore --version": Calls(partial(_timed, "-m", "txstore", "--version")),
            _CLICK: Calls(partial(_timed, "-c", "import click")),
        }

    return Case(
        "command-start",
        "the command's start",
        "command",
        prepare,
        rounds=3 if quick else 20,
        ratios=(Ratio("txstore --version", _CLICK, 2.5),),
        unit=False,
        scale=(1e3, "ms"),
    )


class _Puts:
    """Has the command store something in a new store, again and again.

    :param count: files that one command stores; what it takes is divided by it
    """

    def __init__(self, folder: Path, source: Path, count: int, *options: str) -> None:
        self._storage, self._source, self._count = folder, source, count
        self._options = options

    def __call__(self) -> float:
        taken = _timed(
            *("-m", "txstore", "put", "--quiet", *self._options, self._source),
            *("--storage-dir", self._storage),
        )
        shutil.rmtree(self._storage)
        return taken / self._count


def _many(quick: bool) -> Case:
    count, size = 100 if quick else 1_000, 10 * KIB

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        source = folder / "source"
        source.mkdir()
        for number in range(count):
            (source / f"{number:04}").write_bytes(os.urandom(size))
        return {
            TXSTORE: Calls(_Puts(folder / "ours", source, count, "-r"), 1),
            FLOOR: FloorFiles(folder / "floor", size, count, True),
        }

    return Case(
        "command-many",
        f"'txstore put -r' of {count:,} files of 10 KiB, level 'segment'",
        "file",
        prepare,
        rounds=2 if quick else 12,
        ratios=(Ratio(TXSTORE, FLOOR, 1.4),),
        flushes=True,
    )


def _large(quick: bool) -> Case:
    size = (64 if quick else 1024) * MIB

    def prepare(folder: Path, _: ExitStack) -> dict[str, Subject]:
        source = folder / "source"
        block = os.urandom(MIB)
        with source.open("wb") as file:
            for number in range(size // MIB):
                file.write(number.to_bytes(8, "big") + block[8:])
        return {
            TXSTORE: Calls(_Puts(folder / "ours", source, 1), 1),
            _COPY: Calls(partial(_copy, source, folder / "copy"), 1),
        }

    return Case(
        "command-large",
        f"'txstore put' of {size // MIB:,} MiB, level 'segment'",
        "file",
        prepare,
        rounds=2 if quick else 6,
        ratios=(Ratio(TXSTORE, _COPY, 0.95),),
        flushes=True,
        unit=False,
        scale=(1e3, "ms"),
    )


def _copy(source: Path, target: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
        hasher = hashlib.sha256()
        while block := file.read(MIB):
            hasher.update(block)
    taken = time.perf_counter() - start
    target.unlink()
    return taken
