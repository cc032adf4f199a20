"""A picture of what an answer costs: each level beside upstream and beside the bare flushes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases_segments import SIZES
from benchmarks.measure import FLOOR, TXSTORE, UPSTREAM


class _Bar(NamedTuple):
    """A subject of a case, what it is called, and what it keeps."""

    level: str
    subject: str
    label: str
    colour: str


_BARS = (
    _Bar("none", UPSTREAM, "upstream\nnothing survives a restart", "#b8b8b8"),
    _Bar("none", TXSTORE, "txstore, level none\nsurvives a crash of the process", "#9ecae1"),
    _Bar("file", TXSTORE, "txstore, level file\nand finished files a power loss", "#4292c6"),
    _Bar("segment", TXSTORE, "txstore, level segment\nand every segment a power loss", "#08519c"),
    _Bar("segment", FLOOR, "no store\nthe same writes and flushes alone", "#ffffff"),
)


def draw(results: Path, target: Path) -> bool:
    """Draw the median times of one segment from a results file, a panel for each size.

    :return: ``False``: the file has not all cases of any size, so nothing was drawn
    :raises ModuleNotFoundError: matplotlib is not installed
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same picture.
    mpl.rcParams.update({"svg.hashsalt": "txstore", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot as plt

    cases = json.loads(results.read_text(encoding="utf-8"))["cases"]
    panels = {size: times for size in SIZES.values() if (times := _medians(cases, size))}
    if not panels:
        return False
    figure, several = plt.subplots(
        1, len(panels), figsize=(2.6 + 2.2 * len(panels), 3.0), layout="constrained", squeeze=False
    )
    for axes, (size, times) in zip(several[0], panels.items(), strict=True):
        rows = range(len(_BARS))
        colours = [bar.colour for bar in _BARS]
        axes.barh(rows, times, color=colours, edgecolor="#555555", linewidth=0.8, height=0.7)
        for row, seconds in zip(rows, times, strict=True):
            axes.annotate(
                _shown(seconds),
                (seconds, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_title(f"segments of {size}", fontsize=10)
        axes.set_xlim(0, 1.35 * max(times))
        axes.set_xticks([])
        axes.set_yticks(rows, [bar.label for bar in _BARS])
        axes.invert_yaxis()
        axes.tick_params(length=0, labelleft=axes is several[0][0])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle("How long one segment takes until it is answered", fontsize=11)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
    return True


def _medians(cases: dict[str, Any], size: str) -> list[float]:
    """Seconds of each bar; empty where a case was not measured."""
    names = [f"segments-{bar.level}-{size.replace(' ', '')}" for bar in _BARS]
    if any(name not in cases for name in names):
        return []
    return [
        float(cases[name]["subjects"][bar.subject]["median"])
        for name, bar in zip(names, _BARS, strict=True)
    ]


def _shown(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms"
