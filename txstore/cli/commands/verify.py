"""``txstore verify``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from txstore.cli.display import Display, display
from txstore.cli.interrupts import INTERRUPTED, Interruption
from txstore.cli.options import examples, folders, rate
from txstore.cli.pace import Pace
from txstore.cli.remembered import Remembered, Way
from txstore.cli.text import human, say, shown

if TYPE_CHECKING:
    from txstore.checks import Finding, Verified
    from txstore.inspection import StoreInspector


@click.command(
    short_help="Read stored files, and see whether they are as they were stored.",
    epilog=examples(
        "txstore verify --storage-dir /srv/files",
        "txstore verify report.pdf --storage-dir /srv/files",
        "txstore verify --storage-dir /srv/files --limit-rate 20MiB --json",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@folders()
@click.option(
    "--limit-rate",
    callback=rate,
    metavar="BYTES",
    help="Bytes a second at most, also as 500KiB or 10MiB.",
)
@click.option("--restart", is_flag=True, help="Begin anew, also where a run was interrupted.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object a file, for programs.")
@click.option("--quiet", is_flag=True, help="Print findings and errors only.")
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    storage_dir: str,
    working_dir: str | None,
    limit_rate: int | None,
    restart: bool,
    in_json: bool,
    quiet: bool,
) -> None:
    """Read each stored file NAME, or all, and compare it with the catalogue; write nothing there.

    Workers may be running meanwhile. Run the same command again after an interruption and it goes
    on with the next file.

    Exit codes: 0 nothing is wrong, 1 something is, 2 it could not be looked at.
    """
    from txstore.cli.findings import code_of, could_look
    from txstore.errors import NameRefusedError
    from txstore.inspection import StoreInspector

    with Interruption() as interruption, could_look():
        inspector = StoreInspector(storage_dir, working_dir)
        remembered = Remembered("verify", inspector.storage_dir, inspector.working_dir)
        way = (not names and not restart and remembered.load()) or Way()
        run = _Run(inspector, names, way, Pace(limit_rate, interruption))
        try:
            with closing(run.begin(quiet=quiet)) as view:
                for one in run.files():
                    _tell(one, view, in_json=in_json)
                    if not names:
                        remembered.keep(way)
        except NameRefusedError as error:
            raise click.UsageError(f"{shown(str(error.name))}: {error.reason}.") from error
        except BaseException as error:
            if not names:
                remembered.keep(way, now=True)
            if not isinstance(error, KeyboardInterrupt):
                raise
            say(f"Interrupted after {way.files} files. The same command goes on there.", err=True)
            ctx.exit(INTERRUPTED)
    if not names:
        remembered.forget()
    if not quiet and not in_json:
        say(_summary(way))
    ctx.exit(code_of(run.findings) or int(way.wrong > 0))


class _Run:
    """One run over a store.

    :param way: how far it is; kept current
    :ivar findings: what was found in it
    """

    def __init__(
        self, inspector: StoreInspector, names: tuple[str, ...], way: Way, pace: Pace
    ) -> None:
        self._inspector, self._names, self._way, self._pace = inspector, names, way, pace
        self.findings: list[Finding] = []
        self._view: Display | None = None
        self._read = 0

    def begin(self, *, quiet: bool) -> Display:
        """What shows it."""
        count, size = len(self._names), None
        if not self._names:
            sizes = [one.size for one in self._inspector.catalogue(self._way.after)]
            count, size = len(sizes), sum(sizes)
        name = self._names[0] if count == 1 and self._names else f"{count} files"
        self._view = display(name, size, quiet=quiet, doing="verifying", files=count)
        if self._way.files:
            before = f"{self._way.files} files, {human(self._way.bytes)}, were read before"
            self._view.note(f"going on: {before}")
        return self._view

    def files(self) -> Iterator[Verified]:
        """The files, as they are read."""
        way = self._way
        for number, one in enumerate(
            self._inspector.verify(self._names or None, after=way.after, reached=self._reached), 1
        ):
            way.files += 1
            if one.entry is not None:
                way.after = one.entry.key
                way.bytes += one.entry.size
            if one.found is not None:
                way.wrong += 1
                self.findings.append(one.found)
            assert self._view is not None
            self._view.turn(one.name, number)
            yield one

    def _reached(self, size: int) -> None:
        self._read += size
        assert self._view is not None
        self._view.reached(self._read)
        self._pace.sent(size)
        self._pace.wait()
        self._pace.check()


def _tell(one: Verified, view: Display, *, in_json: bool) -> None:
    if in_json:
        view.say(json.dumps(one.to_dict()))
    elif one.found is not None:
        view.say(f"{one.found.kind}: {shown(one.found.meaning)}")
        view.say(f"    {one.found.remedy}")


def _summary(way: Way) -> str:
    files = f"{way.files} file{'' if way.files == 1 else 's'}, {human(way.bytes)}"
    if not way.wrong:
        return f"{files}: nothing is wrong."
    return f"{files}: {way.wrong} finding{'' if way.wrong == 1 else 's'}."
