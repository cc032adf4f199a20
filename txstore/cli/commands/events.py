"""``txstore events``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from txstore.cli.options import examples, folders
from txstore.cli.text import human, say, shown

if TYPE_CHECKING:
    from txstore import FileStoreManager
    from txstore.protocol.event import Event


@click.command(
    short_help="Show what was stored, cancelled or expired; hand it to a command.",
    epilog=examples(
        "txstore events --storage-dir /srv/files",
        "txstore events --storage-dir /srv/files --follow --json | jq .name",
        "txstore events --storage-dir /srv/files --follow --consumer index --exec ./index.sh",
    ),
)
@folders()
@click.option("--follow", is_flag=True, help="Wait for more at the end, until Ctrl-C.")
@click.option(
    "--consumer",
    metavar="NAME",
    help="Show each event once under this name. [default: all that are kept, each time]",
)
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD for each event, which it gets as JSON on its standard input, until it ends with"
    " 0. Needs --consumer.",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object a line, for programs.")
def events(
    storage_dir: str,
    working_dir: str | None,
    follow: bool,
    consumer: str | None,
    command: str | None,
    in_json: bool,
) -> None:
    """Show what became of transfers, in order: stored, cancelled or expired.

    With --consumer an event is done with once it is printed, or once CMD has taken it; what is not
    comes again the next time. Only one process at a time reads under a name; others wait.
    """
    from txstore.cli.storage import existing

    if command is not None and (consumer is None or in_json):
        raise click.UsageError("--exec needs a --consumer, and goes without --json.")
    with existing(storage_dir, working_dir) as store:
        if consumer is not None and command is not None:
            _hand_over(store, consumer, command, follow=follow)
        elif consumer is not None:
            with store.events(consumer, follow=follow) as feed:
                for event in feed:
                    _show(event, in_json=in_json)
                    event.done()
        else:
            with store.events(follow=follow) as looked:
                for one in looked:
                    _show(one, in_json=in_json)


def _hand_over(store: FileStoreManager, consumer: str, command: str, *, follow: bool) -> None:
    from txstore.events.handing import Command, hand_over

    with store.events(consumer, follow=follow) as feed:
        hand_over(feed, Command(command), lambda text: say(text, err=True))


def _show(event: Event, *, in_json: bool) -> None:
    if in_json:
        click.echo(json.dumps(event.to_dict()))
    else:
        what = event.file_id if event.name is None else event.name
        size = human(event.size)
        click.echo(
            f"{event.sequence:>6}  {event.recorded_at:%Y-%m-%dT%H:%M:%SZ}  {event.kind:<9}"
            f"  {size:>9}  {shown(what)}"
        )
    sys.stdout.flush()  # before it is done with
