"""The ``txstore`` command; of those for a storage also arguments, output, exit codes.

Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 130 stopped by Ctrl-C.
The commands for a fabric are in :mod:`txstore.dxl.commands`, and load its library when they run.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from txstore import FileStoreManager, TransferStatus
from txstore.cli.display import Display, display, human, say, shown
from txstore.cli.interrupts import INTERRUPTED, Interruption
from txstore.cli.options import Command, duration, folder, segment_size
from txstore.cli.problems import EXPECTED, explain
from txstore.cli.source import Source
from txstore.dxl import commands as fabric
from txstore.dxl.protocol import STORE_TOPIC
from txstore.errors import LockTimeoutError, StagingDamagedError
from txstore.local.files.home import DEFAULT_WORKING_DIR, JOURNAL
from txstore.options import Level

if TYPE_CHECKING:
    from txstore.cli.put import Event


def _folders(*, required: bool = True) -> Callable[[Command], Command]:
    """The options that say which store is meant."""
    storage = click.option(
        "--storage-dir",
        required=required,
        callback=folder,
        metavar="DIR",
        help="Folder that finished files appear in.",
    )
    working = click.option(
        "--working-dir",
        callback=folder,
        metavar="DIR",
        help="Folder of the journal and of unfinished transfers. [default: .workdir in the former]",
    )
    return lambda command: storage(working(command))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="txstore", message="%(prog)s %(version)s")
def txstore() -> None:
    """Store files so that they survive being interrupted at any moment."""


@txstore.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@_folders()
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
    targets = _targets(files, name)
    failed = 0
    store: FileStoreManager | None = None
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        for path, target in targets:
            try:
                with Source(path) as source:
                    if store is None:
                        store = stack.enter_context(
                            _opened(storage_dir, working_dir, durability=durability)
                        )
                    interruption.check()
                    _put(store, source, target, segment_size, interruption, quiet=quiet)
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
        if len(targets) > 1:
            say(f"{failed} of {len(targets)} files were not stored.", err=True)
        ctx.exit(INTERRUPTED if interruption.came else 1)


@txstore.command()
@_folders()
@click.option("--json", "as_json", is_flag=True, help="A JSON list, for programs.")
def ls(storage_dir: str, working_dir: str | None, as_json: bool) -> None:
    """List unfinished transfers, the oldest first."""
    with _existing(storage_dir, working_dir) as store:
        transfers = store.transfers()
    if as_json:
        click.echo(json.dumps([_as_json(transfer) for transfer in transfers], indent=2))
    elif transfers:
        now = datetime.now(timezone.utc)
        rows = [("ID", "SEGMENTS", "BYTES", "UPDATED", "STATE")]
        rows += [_as_row(transfer, now) for transfer in transfers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
    else:
        click.echo("No unfinished transfers.")


@txstore.command()
@click.argument("file_id", metavar="ID")
@_folders(required=False)
@click.option(
    "--config",
    "config_dir",
    callback=folder,
    metavar="DIR",
    help="Folder with dxlclient.config: ID is in the store on that fabric.",
)
@click.option(
    "--topic",
    callback=fabric.topic_option,
    metavar="TOPIC",
    help="With --config, topic of the store. [default: that of the file transfer service]",
)
def cancel(
    file_id: str,
    storage_dir: str | None,
    working_dir: str | None,
    config_dir: str | None,
    topic: str | None,
) -> None:
    """Drop the unfinished transfer ID (see `txstore ls`) and its bytes.

    The store is the one in --storage-dir, or with --config the one on a fabric.
    """
    if config_dir is not None:
        if storage_dir is not None or working_dir is not None:
            raise click.UsageError("--config goes with neither --storage-dir nor --working-dir.")
        fabric.cancel_on_fabric(file_id, config_dir, topic=topic or STORE_TOPIC)
        return
    if storage_dir is None:
        raise click.UsageError("one of --storage-dir and --config is required.")
    if topic is not None:
        raise click.UsageError("--topic goes with --config only.")
    with _existing(storage_dir, working_dir) as store:
        try:
            dropped = _drop(store, file_id)
        except LockTimeoutError as error:
            raise click.ClickException(
                f"{shown(file_id)} was not cancelled: another process has been busy with it for"
                f" {error.timeout:g} s ({error.path}). Stop that process, or try again later."
            ) from error
    say(f"cancelled {shown(file_id)}: {dropped} dropped")


@txstore.command()
@_folders()
@click.option(
    "--expire-after",
    callback=duration,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Time without activity after which a transfer is dropped: 90s, 15m, 12h, 7d.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list of the IDs, for programs.")
def expire(storage_dir: str, working_dir: str | None, expire_after: float, as_json: bool) -> None:
    """Drop the transfers that nobody has gone on with, and what dead workers left.

    A store that is in use does it by itself, bit by bit. A transfer that is being worked on at this
    moment stays.
    """
    with _existing(storage_dir, working_dir, expire_after=expire_after) as store:
        dropped = store.expire()
    if as_json:
        click.echo(json.dumps(dropped, indent=2))
        return
    for file_id in dropped:
        say(f"dropped {shown(file_id)}")
    if not dropped:
        say("No transfer has expired.")


for _command in (fabric.serve, fabric.send, fabric.get, fabric.files):
    txstore.add_command(_command)


def _drop(store: FileStoreManager, file_id: str) -> str:
    """Drop a transfer; how much it was, in words."""
    try:
        found = store.status(file_id)
    except StagingDamagedError:
        found = None  # its bytes are lost, and the more is it to be dropped
    segments = store.cancel(file_id).segments_received
    if segments:
        return human(found.bytes_received) if found else f"{segments} segments"
    # It may have been finished since.
    found = store.status(file_id)
    if found is None:
        raise click.ClickException(f"no transfer {shown(file_id)} is known; nothing was done.")
    raise click.ClickException(f"{shown(file_id)} is stored already; nothing was done.")


def _targets(files: tuple[str, ...], name: str | None) -> list[tuple[str, str]]:
    """Each source and the name it is stored under; no two under one."""
    if "" in files:
        raise click.UsageError("FILE is empty: it must be the path of a file.")
    if name == "":
        raise click.UsageError("--name is empty: it must be the name of a file.")
    if name is not None and not name.endswith("/"):
        if len(files) > 1:
            raise click.UsageError("--name goes with one FILE only, unless it ends with a /.")
        return [(files[0], name)]
    below = name or ""
    targets = [(path, below + os.path.basename(os.path.abspath(path))) for path in files]
    counts = Counter(target for _, target in targets)
    twice = [target for target, count in counts.items() if count > 1]
    if twice:
        raise click.UsageError(
            f"more than one FILE would be stored as {', '.join(map(shown, twice))}."
            " Put them one by one, with --name."
        )
    return targets


def _put(
    store: FileStoreManager,
    source: Source,
    name: str,
    segment_size: int,
    interruption: Interruption,
    *,
    quiet: bool,
) -> None:
    # Not needed by the other commands: what it imports takes longer than they do.
    from txstore.cli.put import Acked, Put, Stored

    started = time.monotonic()
    sent = 0
    stored = Stored(0)
    with closing(display(name, source.size, quiet=quiet)) as view:
        for event in Put(store, source, name, segment_size).run():
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
        say(f"{done} {shown(name)}: {human(source.size)}{how}")


def _show(view: Display, event: Event, size: int) -> None:
    from txstore.cli.put import Acked, Checked, Resumed, StartedOver, Stored

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


@contextmanager
def _opened(
    storage_dir: str, working_dir: str | None, **options: Any
) -> Iterator[FileStoreManager]:
    """The store, made if it is not there; a store that cannot be opened ends the command."""
    try:
        store = FileStoreManager(storage_dir, working_dir, **options)
    except EXPECTED as error:
        raise click.ClickException(f"cannot open the store: {explain(error)}") from error
    with store:
        yield store


@contextmanager
def _existing(
    storage_dir: str, working_dir: str | None, **options: Any
) -> Iterator[FileStoreManager]:
    """A store that is there already: who only looks makes no folders."""
    folder = working_dir or os.path.join(storage_dir, DEFAULT_WORKING_DIR)
    try:
        os.stat(os.path.join(folder, JOURNAL))
        with _opened(storage_dir, working_dir, **options) as store:
            yield store
    except FileNotFoundError as error:
        raise click.ClickException(
            f"there is no store here: {error.filename} does not exist."
            " Check --storage-dir and --working-dir."
        ) from error
    except EXPECTED as error:
        raise click.ClickException(explain(error)) from error


def _as_json(transfer: TransferStatus) -> dict[str, object]:
    return asdict(transfer) | {
        "created_at": transfer.created_at.isoformat(),
        "updated_at": transfer.updated_at.isoformat(),
    }


def _as_row(transfer: TransferStatus, now: datetime) -> tuple[str, str, str, str, str]:
    return (
        shown(transfer.file_id),
        str(transfer.segments_received),
        human(transfer.bytes_received),
        _ago((now - transfer.updated_at).total_seconds()),
        transfer.state,
    )


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
