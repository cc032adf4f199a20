"""A picture of the ratios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import TXSTORE, UPSTREAM

_REACHED, _MISSED, _NO_TARGET = "#2a7f62", "#c1512f", "#7a8699"


def draw(results: Path, target: Path) -> None:
    """Draw the ratios of a results file as horizontal bars, targets as marks.

    :raises ModuleNotFoundError: matplotlib is not installed
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same picture.
    mpl.rcParams.update({"svg.hashsalt": "txstore", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    bars = list(_bars(json.loads(results.read_text(encoding="utf-8"))))
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(bars) + 1), layout="constrained")
    for row, (_, ratio, limit, reached) in enumerate(reversed(bars)):
        colour = _NO_TARGET if reached is None else _REACHED if reached else _MISSED
        axes.barh(row, ratio - 1, left=1, color=colour, height=0.62)
        end = max(1.0, ratio, limit or 0.0)
        axes.text(end, row, f"  {ratio:.2f}", va="center", ha="left", fontsize=8)
        if limit is not None:
            axes.plot([limit, limit], [row - 0.42, row + 0.42], color="black", linewidth=1.6)
    axes.set_yticks(range(len(bars)), [label for label, *_ in reversed(bars)])
    axes.axvline(1.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    ratios = [ratio for _, ratio, *_ in bars]
    axes.set_xscale("log")
    least, most = min(0.5, *ratios, 0.5), max(1.0, *ratios, 1.0)  # there may be none
    axes.set_xlim(least * 0.9, most * 1.4)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if tick < most * 1.4]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("ratio of mean times, logarithmic; black mark: target")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def _bars(found: dict[str, Any]) -> Any:
    """What is drawn: the time of a segment and of a file against everything it is compared with."""
    for case in found["cases"].values():
        for ratio in case["ratios"]:
            if ratio["rates"] or not ratio["of"].startswith(TXSTORE):
                continue
            if ratio["wanted"] is None and ratio["to"] == UPSTREAM and "none" not in case["title"]:
                continue  # upstream flushes nothing, so there it says little
            limit = (
                ratio["wanted"].removeprefix("<= ").partition(",")[0] if ratio["wanted"] else None
            )
            label = f"{case['title']} : {ratio['to']}"
            yield label, ratio["mean"], float(limit) if limit else None, ratio["reached"]
