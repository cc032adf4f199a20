"""``txstore backup``."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from txstore.cli.options import FOLDER, examples, folders
from txstore.cli.problems import EXPECTED, explain
from txstore.cli.text import human, say, shown

if TYPE_CHECKING:
    from txstore.backups import Backup


@click.command(
    short_help="Copy the store beside running workers.",
    epilog=examples(
        "txstore backup /backup/files --storage-dir /srv/files",
        "txstore backup /backup/files --storage-dir /srv/files --working-dir /var/lib/txstore",
        "txstore backup /backup/files --storage-dir /srv/files --copy --json",
    ),
)
@click.argument("destination", metavar="DEST", type=FOLDER)
@folders()
@click.option("--copy", is_flag=True, help="Copy all bytes, also on the same file system.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def backup(
    ctx: click.Context,
    destination: str,
    storage_dir: str,
    working_dir: str | None,
    copy: bool,
    in_json: bool,
    quiet: bool,
) -> None:
    """Copy the store to DEST: what was acknowledged before the command began, at least.

    DEST is a store again, with its working dir in it. It is there once it is whole and durable. A
    backup of this store that is there already is brought up to date. `txstore check` looks at it,
    `cp -a` restores it, with no worker running.

    On the same file system stored files get a second name, which costs no space. That protects from
    files that are removed or replaced, and from mistakes with the store. It does not protect from
    the loss of the disk, nor from programs that write into a stored file: --copy does from those,
    and only another disk from both.

    Exit codes: 0 all of it was copied, 1 failed, or something was left out.
    """
    from txstore.backups import SERVERS_BACKUPS
    from txstore.cli.display import display
    from txstore.cli.interrupts import raise_on_ctrl_c
    from txstore.errors import BackupRefusedError
    from txstore.inspection import StoreInspector

    if "://" in storage_dir:
        raise click.ClickException(str(BackupRefusedError(destination, SERVERS_BACKUPS)))
    raise_on_ctrl_c()
    started = time.monotonic()
    name = os.path.basename(os.path.abspath(destination))
    try:
        inspector = StoreInspector(storage_dir, working_dir)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"there is no store here: {error.filename} does not exist."
            " Check --storage-dir and --working-dir."
        ) from error
    except EXPECTED as error:
        raise click.ClickException(explain(error)) from error
    with closing(display(name, None, quiet=quiet or in_json, doing="backing up")) as shows:
        try:
            done = inspector.backup(
                destination, links=not copy, tell=lambda so_far: shows.reached(so_far.bytes)
            )
        except EXPECTED as error:
            raise click.ClickException(explain(error)) from error
    seconds = time.monotonic() - started
    if in_json:
        click.echo(json.dumps(done.to_dict() | {"seconds": round(seconds, 6)}))
    elif not quiet:
        say(_summary(done, seconds))
    for what, reason in done.left_out:
        say(f"left out {shown(what)}: {reason}", err=True)
    if done.left_out:
        ctx.exit(1)


def _summary(done: Backup, seconds: float) -> str:
    ways = ("linked", "cloned", "copied", "unchanged")
    counts = [f"{count} {way}" for way in ways if (count := getattr(done, way))]
    files = f"{done.files} file{'' if done.files == 1 else 's'}"
    how = f" ({', '.join(counts)})" if counts else ""
    transfers = f"{done.transfers} unfinished transfer{'' if done.transfers == 1 else 's'}"
    removed = f", {done.removed} removed" if done.removed else ""
    return f"{files}{how}{removed}, {transfers}, {human(done.bytes)} copied in {seconds:.1f} s."
