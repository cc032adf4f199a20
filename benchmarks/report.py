"""What people and programs get to see: tables, JSON, a picture."""

from __future__ import annotations

import json
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import UNIT, Bound, Measured, Result

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
_FIGURES = ("mean", "median", "p99", "p999", "longest")


def table(result: Result) -> str:
    """A case's figures as text."""
    case, (scale, name) = result.case, result.case.scale
    unit = result.times.get(UNIT)
    lines = [f"{case.title}  [{case.name}]", f"  {name + ' a ' + case.per:40}" + _heading(unit)]
    for subject, times in result.times.items():
        figures = "".join(f"{getattr(times, figure) * scale:10,.1f}" for figure in _FIGURES)
        line = f"  {subject:40}{figures}{times.spread:8.0%}"
        lines.append(line + (f"{times.mean / unit.mean:9.2f}" if unit else ""))
    lines += [f"  -> {ratio_text(measured)}" for measured in result.ratios]
    lines += [f"  -> {bound_text(result, bound)}" for bound in case.bounds]
    return "\n".join(lines) + "\n"


def _heading(unit: object) -> str:
    names = "".join(f"{name:>10}" for name in _FIGURES)
    return f"{names}{'spread':>8}" + (f"{'x flush':>9}" if unit else "")


def ratio_text(measured: Measured) -> str:
    """A ratio, and its target if it has one."""
    ratio = measured.ratio
    what = "as many a second as" if ratio.rates else "the time of"
    text = (
        f"{ratio.of}: {measured.mean:.2f} x {what} {ratio.to}"
        f" (paired median {measured.median:.2f}, {measured.low:.2f} to {measured.high:.2f})"
    )
    return (
        text if ratio.limit is None else f"{text}; wanted {wanted(measured)}: {_verdict(measured)}"
    )


def wanted(measured: Measured) -> str:
    ratio = measured.ratio
    if ratio.rates:
        return f">= {ratio.limit:g}"
    median = f", median <= {ratio.median_limit:g}" if ratio.median_limit is not None else ""
    return f"<= {ratio.limit:g}{median}"


def _verdict(measured: Measured) -> str:
    return "reached" if measured.reached else "NOT REACHED"


def bound_text(result: Result, bound: Bound) -> str:
    """A figure of its own that has a target."""
    scale, name = result.case.scale
    value = getattr(result.times[bound.of], bound.figure)
    verdict = "reached" if result.reached(bound) else "NOT REACHED"
    return (
        f"{bound.of}, {bound.figure}: {value * scale:,.1f} {name};"
        f" wanted <= {bound.limit * scale:,g}: {verdict}"
    )


def targets(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Every target with what was measured."""
    return [row for result in results for row in _targets(result)]


def _targets(result: Result) -> Iterator[dict[str, Any]]:
    title = result.case.title
    for measured in result.ratios:
        if measured.reached is not None:
            ratio = measured.ratio
            yield {
                "case": title,
                "what": f"{ratio.of} : {ratio.to}" + (" (a second)" if ratio.rates else ""),
                "wanted": wanted(measured),
                "measured": _measured_text(measured),
                "reached": measured.reached,
            }
    scale, name = result.case.scale
    for bound in result.case.bounds:
        value = getattr(result.times[bound.of], bound.figure) * scale
        yield {
            "case": title,
            "what": f"{bound.of}, {bound.figure}",
            "wanted": f"<= {bound.limit * scale:,g} {name}",
            "measured": f"{value:,.1f} {name}",
            "reached": result.reached(bound),
        }


def _measured_text(measured: Measured) -> str:
    text = f"{measured.mean:.2f}"
    return text if measured.ratio.median_limit is None else f"{text}, median {measured.median:.2f}"


def targets_table(rows: list[dict[str, Any]]) -> str:
    """The targets as a Markdown table."""
    lines = ["| case | | wanted | measured | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "reached" if row["reached"] else "**not reached**"
        lines.append(
            f"| {row['case']} | {row['what']} | {row['wanted']} | {row['measured']} | {verdict} |"
        )
    return "\n".join(lines)


def put_into(document: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table of targets between its marks in a file."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n{targets_table(rows)}\n{END}{after}"
    document.write_text(text, encoding="utf-8")


def as_json(results: list[Result], quick: bool) -> str:
    """All figures, times in seconds (the memory case: bytes)."""
    return json.dumps(
        {
            "quick": quick,
            "machine": _machine(),
            "targets": targets(results),
            "cases": {result.case.name: _case(result) for result in results},
        },
        indent=1,
    )


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processors": _processors(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "txstore": version("txstore"),
        "upstream": f"dxlfiletransferclient {version('dxlfiletransferclient')}",
    }


def _processors() -> int:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return sum(line.startswith("processor") for line in lines)


def _case(result: Result) -> dict[str, Any]:
    unit = result.times.get(UNIT)
    return {
        "title": result.case.title,
        "per": result.case.per,
        "subjects": {
            name: {
                **{key: _short(value) for key, value in asdict(times).items()},
                **({"to_unit": _short(times.mean / unit.mean)} if unit else {}),
            }
            for name, times in result.times.items()
        },
        "ratios": [
            {
                "of": one.ratio.of,
                "to": one.ratio.to,
                "rates": one.ratio.rates,
                "wanted": wanted(one) if one.ratio.limit is not None else None,
                "reached": one.reached,
                "mean": _short(one.mean),
                "median": _short(one.median),
                "low": _short(one.low),
                "high": _short(one.high),
            }
            for one in result.ratios
        ],
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
