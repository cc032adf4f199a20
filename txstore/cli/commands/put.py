"""``txstore put``."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from txstore.cli.display import Display, display
from txstore.cli.interrupts import INTERRUPTED, Interruption
from txstore.cli.options import FILE, examples, folders, segment_size
from txstore.cli.problems import EXPECTED, explain
from txstore.cli.put import Acked, Checked, Event, Put, Resumed, StartedOver, Stored
from txstore.cli.sources import source_at, targets
from txstore.cli.text import human, say, shown

if TYPE_CHECKING:
    from txstore import FileStoreManager
    from txstore.options import Level
    from txstore.source import Source


@click.command(
    short_help="Store files; run again, it goes on.",
    epilog=examples(
        "txstore put report.pdf --storage-dir /srv/files",
        "txstore put *.jpg --storage-dir /srv/files --name photos/",
        "txstore put big.iso --storage-dir /srv/files --segment-size 8MiB --durability file",
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@folders()
@click.option(
    "--name",
    help="Name to store FILE as; with a / at its end, a folder. [default: FILE's own last part]",
)
@click.option(
    "--segment-size",
    callback=segment_size,
    default="1MiB",
    show_default=True,
    metavar="BYTES",
    help="Bytes a message, also as 50KiB or 1MiB; at most 1GiB.",
)
@click.option(
    "--durability",
    type=click.Choice(["segment", "file", "none"]),
    default="segment",
    show_default=True,
    help="What survives a power loss: every segment, finished files, or nothing.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def put(
    ctx: click.Context,
    files: tuple[str, ...],
    storage_dir: str,
    working_dir: str | None,
    name: str | None,
    segment_size: int,
    durability: Level,
    quiet: bool,
) -> None:
    """Store each FILE; run the same command again after an interruption to go on.

    What is stored has the permissions of its FILE and the time at which that was changed.
    """
    from txstore.cli.storage import opened

    named = targets(files, name, "--name")
    failed = 0
    store: FileStoreManager | None = None
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        for path, target in named:
            try:
                with source_at(path, target) as source:
                    if store is None:
                        store = stack.enter_context(
                            opened(storage_dir, working_dir, durability=durability)
                        )
                    interruption.check()
                    _put(store, source, segment_size, interruption, quiet=quiet)
            except click.ClickException:
                interruption.check()
                raise
            except (*EXPECTED, MemoryError) as error:
                failed += 1
                say(f"Error: {shown(path)} was not stored: {explain(error)}", err=True)
            except KeyboardInterrupt:
                say(
                    f"Interrupted at {shown(path)}. What has arrived is kept: the same command"
                    " goes on from there.",
                    err=True,
                )
                ctx.exit(INTERRUPTED)
    if failed:
        if len(named) > 1:
            say(f"{failed} of {len(named)} files were not stored.", err=True)
        ctx.exit(INTERRUPTED if interruption.came else 1)


def _put(
    store: FileStoreManager,
    source: Source,
    segment_size: int,
    interruption: Interruption,
    *,
    quiet: bool,
) -> None:
    started = time.monotonic()
    sent = 0
    stored = Stored(0)
    with ExitStack() as stack:
        view: Display | None = None
        for event in Put(store, source, segment_size).run():
            # A file that takes one step has no way that could be shown.
            if view is None and not isinstance(event, Stored):
                view = stack.enter_context(closing(display(source.name, source.size, quiet=quiet)))
            if view is not None:
                _show(view, event, source.size)
            if isinstance(event, Acked | Stored):
                sent += event.sent
            if isinstance(event, Stored):
                stored = event
                break
            interruption.check()
    if not quiet:
        seconds = time.monotonic() - started
        how = f" in {seconds:.2f} s ({human(sent / seconds)}/s)"
        if stored.already:
            how = ""
        elif stored.by_another:
            how = " by another run of this command"
        elif sent < source.size:
            how = f" ({human(sent)} of it now){how}"
        done = "already stored" if stored.already else "stored"
        say(f"{done} {shown(source.name)}: {human(source.size)}{how}")


def _show(view: Display, event: Event, size: int) -> None:
    match event:
        case Checked(offset, total):
            view.checked(offset, total)
        case Resumed(offset):
            view.restart(offset, f"resuming at {human(offset)} of {human(size)}")
        case StartedOver(reason):
            view.restart(0, f"starting over: {reason}")
        case Acked(offset):
            view.reached(offset)
        case Stored():
            view.reached(size)
