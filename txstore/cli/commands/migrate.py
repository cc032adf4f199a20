"""``txstore migrate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from txstore.cli.options import FOLDER, examples, folders

if TYPE_CHECKING:
    from txstore.migration import Amount, Report

#: Names that are in the way, as many as are told.
_TOLD = 20


@click.command(
    short_help="Move a store to servers, or back; run again, it goes on.",
    epilog=examples(
        "txstore migrate --storage-dir /srv/files"
        " --to-storage-dir s3://bucket/files --to-working-dir postgresql://db.example/txstore"
        " --dry-run",
        "txstore migrate --storage-dir s3://bucket/files"
        " --working-dir postgresql://db.example/txstore --to-storage-dir /srv/back --json",
    ),
)
@folders()
@click.option(
    "--to-storage-dir",
    required=True,
    type=FOLDER,
    metavar="DIR",
    help="Where files go: empty, or not there yet; s3://bucket/prefix, or a folder.",
)
@click.option(
    "--to-working-dir",
    type=FOLDER,
    metavar="DIR",
    help="Where the journal goes: postgresql://..., or a folder. [default: .workdir in the former]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and move nothing.")
@click.option(
    "--undo",
    is_flag=True,
    help="Give up a move that is not finished: the store stays where it was.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def migrate(
    ctx: click.Context,
    storage_dir: str,
    working_dir: str | None,
    to_storage_dir: str,
    to_working_dir: str | None,
    dry_run: bool,
    undo: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Move a store from two folders to an object store and PostgreSQL, or back.

    Stop all services, run this, give them the two new places, start them. Files, unfinished
    transfers, what answers repeats, events and their consumers are moved. Senders go on with their
    next segment.

    From the moment when it begins, workers on either store are refused, until all is in the target.
    Killed at any moment, the same command goes on. Nothing is removed: the old store stays, marked
    as moved. When you are sure, remove it.

    Exit codes: 0 all is there, 1 not yet, or a transfer was damaged and left out.
    """
    from txstore.cli.interrupts import INTERRUPTED, raise_on_ctrl_c
    from txstore.cli.moving import Progress
    from txstore.cli.problems import EXPECTED, explain
    from txstore.cli.text import say, shown
    from txstore.errors import MigrationError
    from txstore.migration import Migration, Place

    raise_on_ctrl_c()
    progress = Progress(quiet=quiet)
    try:
        source, target = Place(storage_dir, working_dir), Place(to_storage_dir, to_working_dir)
        migration = Migration(source, target)
        if undo:
            migration.undo()
            _tell(
                as_json,
                quiet,
                {"undone": True},
                f"Workers may go on with {shown(storage_dir)}. Remove what is at"
                f" {shown(to_storage_dir)}.",
            )
            return
        if dry_run:
            amount = migration.plan()
            _tell(as_json, quiet, asdict(amount), f"Would move {_words(amount)}.")
            return
        report = migration.run(progress)
    except KeyboardInterrupt:
        progress.close()
        say("Interrupted. The same command goes on from there.", err=True)
        ctx.exit(INTERRUPTED)
    except MigrationError as error:
        progress.close()
        for name, reason in error.names[:_TOLD]:
            say(f"{shown(name)}: {reason}", err=True)
        if len(error.names) > _TOLD:
            say(f"... and {len(error.names) - _TOLD} more", err=True)
        raise click.ClickException(str(error)) from error
    except EXPECTED as error:
        progress.close()
        raise click.ClickException(explain(error)) from error
    progress.close()
    _tell(as_json, quiet, report.to_dict(), _summary(report, to_storage_dir))
    for file_id in report.damaged:
        say(
            f"Transfer {shown(file_id)} was left out: its bytes are damaged. Have it sent again.",
            err=True,
        )
    ctx.exit(1 if report.damaged else 0)


def _tell(as_json: bool, quiet: bool, facts: dict[str, object], text: str) -> None:
    from txstore.cli.text import say

    if as_json:
        say(json.dumps(facts))
    elif not quiet:
        say(text)


def _words(amount: Amount) -> str:
    from txstore.cli.text import human

    return (
        f"{amount.files} files ({human(amount.file_bytes)}), {amount.transfers} unfinished"
        f" transfers ({human(amount.transfer_bytes)}), {amount.messages} records for repeats,"
        f" {amount.events} events, {amount.consumers} consumers"
    )


def _summary(report: Report, to_storage_dir: str) -> str:
    from txstore.cli.text import shown

    if report.was_finished:
        return f"An earlier run moved all of it to {shown(to_storage_dir)}. Nothing was done."
    return (
        f"Moved to {shown(to_storage_dir)}: {_words(report.there)}. Of these this run copied"
        f" {report.copied.files} files and {report.copied.transfers} transfers. Start the services"
        " there."
    )
