"""``txstore repair``."""

from __future__ import annotations

import json

import click

from txstore.cli.options import examples, folders


@click.command(
    short_help="Mend what `txstore check` finds.",
    epilog=examples(
        "txstore repair --storage-dir /srv/files --dry-run",
        "txstore repair --storage-dir /srv/files",
    ),
)
@folders()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "in_json", is_flag=True, help="A JSON list, for programs.")
@click.pass_context
def repair(
    ctx: click.Context, storage_dir: str, working_dir: str | None, dry_run: bool, in_json: bool
) -> None:
    """Mend what `txstore check` finds, as far as nothing acknowledged can be lost by it.

    Says what it will do before it does it. Workers may be running meanwhile.

    Exit codes: 0 nothing is wrong any more, 1 something still is, 2 it could not be looked at.
    """
    from txstore.cli.findings import code_of, could_look, show
    from txstore.cli.interrupts import raise_on_ctrl_c
    from txstore.cli.storage import existing
    from txstore.cli.text import say, shown
    from txstore.inspection import StoreInspector

    raise_on_ctrl_c()
    with could_look():
        inspector = StoreInspector(storage_dir, working_dir)
        findings = list(inspector.check())
    todo = [one for one in findings if one.mend]
    for one in () if in_json else todo:
        say(f"{one.kind}: {shown(one.meaning)}")
        say(f"    {'would' if dry_run else 'will'} {one.mend}")
    if todo and not dry_run:
        with existing(storage_dir, working_dir) as store:
            for one in todo:
                store.repair(one)
        with could_look():
            findings = list(inspector.check())
    if in_json:
        done = [one for one in todo if one not in findings]
        told = [one.to_dict() | {"mended": one in done} for one in [*done, *findings]]
        click.echo(json.dumps(told, indent=2))
        ctx.exit(code_of(findings))
    left = [one for one in findings if one not in todo or not dry_run]
    for one in left:
        show(one)
    mended = len(todo) if dry_run else sum(one not in findings for one in todo)
    if todo or findings:
        say(f"{mended} {'could be ' if dry_run else ''}mended, {len(left)} not.")
    else:
        say("Nothing is wrong.")
    ctx.exit(code_of(findings))
