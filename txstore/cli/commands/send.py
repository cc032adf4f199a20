"""``txstore send``."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click

from txstore.cli.display import display
from txstore.cli.fabric import FAILED, connected, ctrl_c, fabric_options
from txstore.cli.interrupts import INTERRUPTED
from txstore.cli.options import FILE, examples
from txstore.cli.options import segment_size as size_in_bytes
from txstore.cli.problems import CommandError, explain
from txstore.cli.sources import source_at, targets
from txstore.cli.text import human, shown
from txstore.dxl.protocol import LARGEST_SEGMENT, STORE_TOPIC
from txstore.errors import (
    FileChangedError,
    InterruptedSendError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
)

if TYPE_CHECKING:
    from txstore.dxl import FileSender, Link, SendProgress

#: Seconds after Ctrl-C in which another one means: cancel.
SECOND_THOUGHTS = 2.0

#: What goes wrong with one file, and need not with the next.
_OF_ONE_FILE = (
    *(FileChangedError, RemoteError, TransferCancelledError, UnsendableNameError),
    *(CommandError, OSError),
)


def _segment_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    size = size_in_bytes(ctx, param, value)
    if size is not None and size > LARGEST_SEGMENT:
        raise click.BadParameter(
            f"{value!r} is more than a DXL broker takes, which is {LARGEST_SEGMENT} at most.",
            *(ctx, param),
        )
    return size


@click.command(
    short_help="Send files; run again, it goes on.",
    epilog=examples(
        "txstore send report.pdf --config /etc/dxl",
        "txstore send *.jpg --config /etc/dxl --to photos/",
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@fabric_options()
@click.option(
    "--to",
    metavar="NAME",
    help="Name to store FILE as; with a / at its end, a folder. [default: FILE's own last part]",
)
@click.option(
    "--segment-size",
    callback=_segment_size,
    default="auto",
    show_default=True,
    metavar="BYTES",
    help="Bytes a message, also as 50KiB; auto: the most that the broker takes.",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object a file, for programs.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def send(
    files: tuple[str, ...],
    config_dir: str,
    topic: str,
    timeout: float,
    retry_for: float,
    to: str | None,
    segment_size: int | None,
    in_json: bool,
    quiet: bool,
) -> None:
    """Send each FILE to the store on a DXL fabric.

    Goes on after anything: run the same command again and it continues where the store is. Ctrl-C
    stops it and leaves what was sent; a second one, right after, drops that too.
    """
    from txstore.dxl import FileSender

    named = targets(files, to, "--to")
    failed = 0
    with connected(config_dir, timeout, retry_for) as link:
        sender = FileSender(link, store_topic=topic, segment_size=segment_size)
        for path, name in named:
            try:
                _send(sender, link, path, name, in_json=in_json, quiet=quiet)
            except _OF_ONE_FILE as error:
                if isinstance(error, TimeoutError | BrokenPipeError):
                    raise  # nobody answers, or reads: it would be the same with the other files
                failed += 1
                text = explain(error) + _what_to_do(error, config_dir, topic)
                click.echo(f"Error: {shown(path)}: {shown(text)}", err=True)
    if failed:
        sys.exit(FAILED)


def _what_to_do(error: Exception, config_dir: str, topic: str) -> str:
    if isinstance(error, UnsendableNameError):
        return ", with --to"
    if isinstance(error, FileChangedError) and error.file_id is not None:
        command = ["txstore", "cancel", error.file_id, "--config", config_dir]
        if topic != STORE_TOPIC:
            command += ["--topic", topic]
        return f". What was sent of it stays until it expires; to drop it: {shlex.join(command)}"
    return ""


def _send(
    sender: FileSender, link: Link, path: str, name: str, *, in_json: bool, quiet: bool
) -> None:
    with source_at(path, name) as source:
        size = source.size
    last: SendProgress | None = None
    with (
        ctrl_c(link) as again,
        closing(display(name, size, quiet=quiet, doing="sending")) as view,
    ):
        link.notice = view.note

        def progress(now: SendProgress) -> None:
            nonlocal last
            if last is None or last.file_id != now.file_id:
                view.note(f"id {now.file_id}")
                if now.resumed_from:
                    view.restart(
                        now.resumed_from,
                        f"resuming at {human(now.resumed_from)} of {human(now.size)}",
                    )
            last = now
            view.reached(now.sent)

        try:
            sent = sender.send(path, name, progress)
        except InterruptedSendError:
            if last is None:
                sys.exit(INTERRUPTED)
            view.note(
                "stopped; the same command goes on from here."
                f" Ctrl-C again within {SECOND_THOUGHTS:g} s drops what was sent"
            )
            if again.wait(SECOND_THOUGHTS):
                link.stop.clear()
                view.note(f"cancelled, {sender.cancel(last.file_id)} segments dropped")
            sys.exit(INTERRUPTED)
    if in_json:
        click.echo(json.dumps({"path": path, **vars(sent)}))
    elif not quiet:
        how = f"in {sent.segments} segments" if sent.segments else "stored already, nothing sent"
        click.echo(f"stored {shown(name)}: {human(sent.size)} {how}, SHA-256 {sent.sha256}")
