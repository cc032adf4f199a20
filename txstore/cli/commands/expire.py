"""``txstore expire``."""

from __future__ import annotations

import json

import click

from txstore.cli.options import examples, folders
from txstore.cli.text import say, shown
from txstore.cli.transfers import expiry_option


@click.command(
    short_help="Drop the transfers that nobody has gone on with.",
    epilog=examples(
        "txstore expire --storage-dir /srv/files",
        "txstore expire --storage-dir /srv/files --expire-after 12h",
    ),
)
@folders()
@expiry_option("Time without activity after which a transfer is dropped")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of the IDs, for programs.")
def expire(storage_dir: str, working_dir: str | None, expire_after: float, as_json: bool) -> None:
    """Drop the transfers that nobody has gone on with, and what dead workers left.

    A store that is in use does it by itself, bit by bit. A transfer that is being worked on at this
    moment stays.
    """
    from txstore.cli.storage import existing

    with existing(storage_dir, working_dir, expire_after=expire_after) as store:
        dropped = store.expire()
    if as_json:
        click.echo(json.dumps(dropped, indent=2))
        return
    for file_id in dropped:
        say(f"dropped {shown(file_id)}")
    if not dropped:
        say("No transfer has expired.")
