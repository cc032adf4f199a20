"""``txstore events``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from txstore.cli.options import examples, folders
from txstore.cli.table import cut, table, width_of_stdout
from txstore.cli.text import human, say, shown

if TYPE_CHECKING:
    from txstore import FileStoreManager
    from txstore.protocol.event import Consumer, Event

#: Characters of a name that stay where a terminal is narrow.
_NAME = 16


@click.command(
    short_help="Show what was stored, cancelled or expired; hand it to a command.",
    epilog=examples(
        "txstore events --storage-dir /srv/files",
        "txstore events --storage-dir /srv/files --follow --json | jq .name",
        "txstore events --storage-dir /srv/files --follow --consumer index --exec ./index.sh",
        "txstore events --storage-dir /srv/files --consumers",
        "txstore events --storage-dir /srv/files --forget index",
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
@click.option(
    "--consumers", "list_them", is_flag=True, help="List the consumers, and how far each is."
)
@click.option(
    "--forget",
    metavar="NAME",
    help="Forget a consumer that will not come back: events are kept for it no more.",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object a line, for programs.")
def events(
    storage_dir: str,
    working_dir: str | None,
    follow: bool,
    consumer: str | None,
    command: str | None,
    list_them: bool,
    forget: str | None,
    in_json: bool,
) -> None:
    """Show what became of transfers, in order: stored, cancelled or expired.

    With --consumer an event is done with once it is printed, or once CMD has taken it; what is not
    comes again the next time. Only one process at a time reads under a name; others wait.

    Events are kept until every consumer is done with them, or there are too many. So forget one
    that nobody wants any more. Comes it back all the same, it begins with the oldest that is kept.
    """
    from txstore.cli.storage import existing

    if list_them + (forget is not None) + (follow or consumer is not None) > 1:
        raise click.UsageError("--consumers and --forget each go alone.")

    if command is not None and (consumer is None or in_json):
        raise click.UsageError("--exec needs a --consumer, and goes without --json.")
    with existing(storage_dir, working_dir) as store:
        if list_them:
            _list(store.consumers(), in_json=in_json)
        elif forget is not None:
            _forget(store, forget, in_json=in_json)
        elif consumer is not None and command is not None:
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


def _list(consumers: list[Consumer], *, in_json: bool) -> None:
    if in_json:
        for one in consumers:
            click.echo(json.dumps(one.to_dict()))
        return
    names = [shown(one.name) for one in consumers]
    columns = {
        "NAME": names,
        "DONE WITH": [str(one.cursor) for one in consumers],
        "BEHIND": [str(one.behind) for one in consumers],
        "LOST": [str(one.lost) for one in consumers],
        "REGISTERED": [f"{one.registered_at:%Y-%m-%dT%H:%M:%SZ}" for one in consumers],
    }
    lines = table(
        columns,
        width_of_stdout(),
        short={"NAME": lambda most: [cut(name, max(most, _NAME)) for name in names]},
        spare=["REGISTERED", "LOST"],
        numbers=["DONE WITH", "BEHIND", "LOST"],
    )
    for line in lines if consumers else ["No consumers."]:
        click.echo(line)


def _forget(store: FileStoreManager, name: str, *, in_json: bool) -> None:
    known = [one for one in store.consumers() if one.name == name]
    if not store.remove_consumer(name):
        raise click.ClickException(
            f"there is no consumer {shown(name)!r}; nothing was done. --consumers lists them."
        )
    for one in known:
        if in_json:
            click.echo(json.dumps(one.to_dict()))
        else:
            behind = f"{one.behind} event{'' if one.behind == 1 else 's'} behind"
            say(f"{shown(name)}: forgotten; it was {behind}.")


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
