"""``txstore check``."""

from __future__ import annotations

import json

import click

from txstore.cli.options import examples, folders


@click.command(
    short_help="Look whether everything is right; write nothing.",
    epilog=examples(
        "txstore check --storage-dir /srv/files",
        "txstore check --storage-dir /srv/files --deep --json",
        "txstore check --storage-dir /srv/files --ignore stored-missing",
    ),
)
@folders()
@click.option("--deep", is_flag=True, help="Read all bytes, staged and lately stored ones.")
@click.option(
    "--ignore",
    multiple=True,
    metavar="KIND",
    help="Leave out findings of this kind, such as stored-missing. May be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list, for programs.")
@click.pass_context
def check(
    ctx: click.Context,
    storage_dir: str,
    working_dir: str | None,
    deep: bool,
    ignore: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look whether everything is right with a store; write nothing.

    Workers may be running meanwhile. Each finding says what it means and what mends it.

    Exit codes: 0 nothing is wrong, 1 something is, 2 it could not be looked at.
    """
    from txstore.checks import KINDS
    from txstore.cli.findings import code_of, could_look, show
    from txstore.cli.interrupts import raise_on_ctrl_c
    from txstore.cli.text import say
    from txstore.inspection import StoreInspector

    unknown = [kind for kind in ignore if kind not in KINDS]
    if unknown:
        raise click.UsageError(f"no finding is of the kind {unknown[0]!r}: {', '.join(KINDS)}.")
    raise_on_ctrl_c()
    findings = []
    with could_look():
        for one in StoreInspector(storage_dir, working_dir).check(deep=deep):
            if one.kind not in ignore:
                findings.append(one)
                if not as_json:
                    show(one)
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in findings], indent=2))
    else:
        count = len(findings)
        say(f"{count} finding{'s' if count > 1 else ''}." if count else "Nothing is wrong.")
    ctx.exit(code_of(findings))
