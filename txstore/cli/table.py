"""A table for a terminal of any width, and for programs that cut columns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile

_GAP = "  "


def width_of_stdout() -> int | None:
    """Columns of the terminal that standard output is; ``None``: it is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def table(
    columns: dict[str, list[str]],
    width: int | None,
    *,
    short: dict[str, Callable[[int], list[str]]],
    spare: Sequence[str],
    numbers: Sequence[str],
) -> list[str]:
    """Its lines, with a heading; it gives up what does not fit.

    :param columns: the cells of each, by its heading
    :param width: columns of the terminal; ``None``: any line fits
    :param short: some columns' cells in so many characters, or as few as can be; taken in turn
        until the lines fit
    :param spare: columns that are left out then, in turn
    :param numbers: columns that are written to the right
    """
    columns = dict(columns)
    less = [*short.items(), *((heading, None) for heading in spare)]
    while width is not None and (over := _width(columns) - width) > 0 and less:
        heading, shorter = less.pop(0)
        if shorter is None:
            del columns[heading]
        else:
            columns[heading] = shorter(_widest(heading, columns[heading]) - over)
    widths = {heading: _widest(heading, cells) for heading, cells in columns.items()}
    rows = zip(*([heading, *cells] for heading, cells in columns.items()), strict=True)
    return [
        _GAP.join(
            cell.rjust(widths[heading]) if heading in numbers else cell.ljust(widths[heading])
            for heading, cell in zip(columns, row, strict=True)
        ).rstrip()
        for row in rows
    ]


def cut(text: str, most: int) -> str:
    """A text that is no longer than it may be."""
    return text if len(text) <= most else text[: most - 1] + "…"


def beginnings(ids: list[str], most: int) -> list[str]:
    """Each id in so many characters, but never so few that another one begins so, too."""
    needed = dict.fromkeys(ids, 1)
    for one, other in pairwise(sorted(ids)):
        pairs = zip(one, other, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        needed[one], needed[other] = max(needed[one], common + 1), max(needed[other], common + 1)
    return [cut(one, max(most, needed[one] + 1)) for one in ids]


def _width(columns: dict[str, list[str]]) -> int:
    gaps = len(_GAP) * (len(columns) - 1)
    return sum(_widest(heading, cells) for heading, cells in columns.items()) + gaps


def _widest(heading: str, cells: list[str]) -> int:
    return max(map(len, [heading, *cells]))
