"""``python -m benchmarks``: measure, print, write ``results.json`` and what ``docs/performance.md``
shows of it: the table of targets and the picture."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cases_command, cases_opening, cases_segments, cases_together, plot, report
from benchmarks.measure import Case, Result, measure
from benchmarks.subjects import Flush

HERE = Path(__file__).resolve().parent
RESULTS, DOCS = HERE / "results.json", HERE.parent / "docs"
PERFORMANCE, PICTURE = DOCS / "performance.md", DOCS / "cost.svg"


def main() -> int:
    options = _options()
    if options.targets:
        print(report.targets_table(_committed_targets()))
        return 0
    if options.redraw:
        return _publish(_committed_targets())
    chosen = _chosen(options.only, options.quick)
    if options.list:
        print("\n".join(f"{case.name:28}{case.title}" for case in chosen))
        return 0
    results = [_measured(case, options.folder) for case in chosen]
    found = report.targets(results)
    if found:
        print(report.targets_table(found))
    whole = not options.only and not options.quick
    output = options.output or (RESULTS if whole else None)
    if output is None:
        print("\nNot the whole run: results.json is left as it was (--output writes elsewhere).")
        return 0
    output.write_text(report.as_json(results, options.quick) + "\n", encoding="utf-8")
    print(f"\nWrote {output}.")
    return _publish(found) if output.resolve() == RESULTS else 0


def _committed_targets() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["targets"]
    return found


def _publish(targets: list[dict[str, Any]]) -> int:
    """Have docs/performance.md show what ``results.json`` says."""
    report.put_into(PERFORMANCE, targets)
    try:
        plot.draw(RESULTS, PICTURE)
    except ModuleNotFoundError:
        print("No picture: matplotlib is not installed (pip install 'txstore[bench]').")
        return 1
    print(f"Wrote {PERFORMANCE} and {PICTURE}.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 20 seconds; rough figures")
    parser.add_argument("--only", metavar="CASE", help="only cases whose name has this in it")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--targets", action="store_true", help="show the targets of results.json")
    parser.add_argument("--redraw", action="store_true", help="table and picture of results.json")
    parser.add_argument("--folder", type=Path, help="where to work; must be on a real disk")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the JSON goes")
    return parser.parse_args()


def _chosen(only: str | None, quick: bool) -> list[Case]:
    modules = (cases_segments, cases_together, cases_opening, cases_command)
    cases = [case for module in modules for case in module.cases(quick)]
    chosen = [case for case in cases if only is None or only in case.name]
    if not chosen:
        sys.exit(f"No case has {only!r} in its name; --list names them.")
    return chosen


def _measured(case: Case, folder: Path | None) -> Result:
    with tempfile.TemporaryDirectory(dir=folder, prefix="txstore-bench-") as work:
        unit = Flush(Path(work))
        try:
            result = measure(case, Path(work, "case"), unit)
        finally:
            unit.close()
    print(report.table(result), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
