"""``txstore serve``, ``send``, ``get`` and ``files``, and what ``cancel --config`` does.

Importing this module is cheap: the fabric's library is imported by the commands that run.

Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 78 a configuration that
cannot work, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import threading
from contextlib import closing, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from txstore.cli import options
from txstore.cli.display import display, human, say, shown
from txstore.cli.problems import explain
from txstore.dxl.command_parts import (
    BAD_CONFIG,
    FAILED,
    INTERRUPTED,
    connected,
    ctrl_c,
    fabric_options,
    topic_option,
)
from txstore.dxl.protocol import LARGEST_SEGMENT, STORE_TOPIC
from txstore.errors import OptionError
from txstore.protocol.names import is_within

if TYPE_CHECKING:
    from txstore.dxl.config import ServiceConfig
    from txstore.dxl.link import Link
    from txstore.dxl.sender import FileSender, SendProgress

__all__ = ["cancel_on_fabric", "files", "get", "send", "serve", "topic_option"]

#: Seconds after Ctrl-C in which another one means: cancel.
SECOND_THOUGHTS = 2.0


def _segment_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    size = options.segment_size(ctx, param, value)
    if size > LARGEST_SEGMENT:
        raise click.BadParameter(
            f"{value!r} is more than a DXL broker takes, which is {LARGEST_SEGMENT} at most.",
            *(ctx, param),
        )
    return size


@click.command()
@click.argument("config_dir", metavar="CONFIG_DIR", callback=options.folder)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that serve, each started again when it dies.",
)
def serve(config_dir: str, workers: int) -> None:
    """Store what senders on a DXL fabric send.

    CONFIG_DIR holds dxlclient.config and dxlfiletransferservice.config, as upstream's service has
    them. Prints a line when requests are answered; stops cleanly on SIGTERM, SIGHUP and Ctrl-C.
    Exits with code 78 at once if the configuration cannot work, with 75 when the storage or the
    working dir was removed or replaced: start it again then.
    """
    from txstore.dxl.errors import ConfigError
    from txstore.dxl.heartbeat import Heartbeat
    from txstore.dxl.supervisor import Supervisor
    from txstore.dxl.worker import serve_until_told, set_up_logging

    try:
        config = _checked_config(config_dir)
        set_up_logging(config)
    except (ConfigError, OSError, ValueError) as error:
        click.echo(f"Error: the configuration cannot work: {shown(str(error))}", err=True)
        sys.exit(BAD_CONFIG)

    for what in config.ignored:
        logging.getLogger("txstore.dxl").warning("Ignored: %s", what)

    def ready() -> None:
        who = "1 worker" if workers == 1 else f"{workers} workers"
        # It serves, whether or not somebody reads this.
        say(f"txstore: ready, {who}, {config.topics.store} -> {shown(config.storage_dir)}")
        _tell_systemd("READY=1")

    watched = "WATCHDOG_USEC" in os.environ
    alive = Heartbeat(lambda: _tell_systemd("WATCHDOG=1") if watched else None)
    if workers > 1:
        sys.exit(Supervisor(config, workers, ready, alive).run())
    from txstore.dxl.service import FileTransferService

    service = FileTransferService(config, on_round=alive)
    sys.exit(serve_until_told(service, ready, threading.Event()))


def _checked_config(config_dir: str) -> ServiceConfig:
    from txstore.dxl.config import ServiceConfig
    from txstore.dxl.errors import ConfigError
    from txstore.dxl.fabric import load_client_config
    from txstore.dxl.service import open_store

    config = ServiceConfig.load(config_dir)
    load_client_config(config.config_dir)
    try:
        open_store(config).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            config.path, f"[General] {_option_at_fault(config, error)}: {explain(error)}"
        ) from error
    return config


def _option_at_fault(config: ServiceConfig, error: Exception) -> str:
    if isinstance(error, OptionError):
        first, *rest = error.option.split("_")
        return first + "".join(word.capitalize() for word in rest)
    path, working_dir = getattr(error, "filename", None), config.working_dir
    if not isinstance(path, str) or working_dir is None or is_within(config.storage_dir, path):
        return "storageDir"
    # Where a folder above it cannot be made, that one is named.
    at_fault = is_within(path, working_dir) or is_within(working_dir, path)
    return "workingDir" if at_fault else "storageDir"


def _tell_systemd(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # Nobody may listen there any more: it is only a word on the way, and no reason to end.
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(state.encode())


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@fabric_options
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
@click.option("--quiet", is_flag=True, help="Print errors only.")
def send(
    files: tuple[str, ...],
    config_dir: str,
    topic: str,
    timeout: float,
    retry_for: float,
    to: str | None,
    segment_size: int | None,
    quiet: bool,
) -> None:
    """Send each FILE to the store on a DXL fabric.

    Goes on after anything: run the same command again and it continues where the store is. Ctrl-C
    stops it and leaves what was sent; a second one, right after, drops that too.
    """
    targets = _targets(files, to)
    from txstore.dxl.errors import (
        FileChangedError,
        RemoteError,
        TransferCancelledError,
        UnsendableNameError,
    )
    from txstore.dxl.sender import FileSender

    of_one_file = (
        *(FileChangedError, RemoteError, TransferCancelledError, UnsendableNameError),
        OSError,
    )
    failed = 0
    with connected(config_dir, timeout, retry_for) as link:
        sender = FileSender(link, store_topic=topic, segment_size=segment_size)
        for path, name in targets:
            try:
                _send(sender, link, path, name, quiet=quiet)
            except of_one_file as error:
                if isinstance(error, TimeoutError | BrokenPipeError):
                    raise  # nobody answers, or reads: it would be the same with the other files
                failed += 1
                text = explain(error) + _what_to_do(error, config_dir, topic)
                click.echo(f"Error: {shown(path)}: {shown(text)}", err=True)
    if failed:
        sys.exit(FAILED)


def _what_to_do(error: Exception, config_dir: str, topic: str) -> str:
    from txstore.dxl.errors import FileChangedError, UnsendableNameError

    if isinstance(error, UnsendableNameError):
        return ", with --to"
    if isinstance(error, FileChangedError) and error.file_id is not None:
        command = ["txstore", "cancel", error.file_id, "--config", config_dir]
        if topic != STORE_TOPIC:
            command += ["--topic", topic]
        return f". What was sent of it stays until it expires; to drop it: {shlex.join(command)}"
    return ""


def _send(sender: FileSender, link: Link, path: str, name: str, *, quiet: bool) -> None:
    from txstore.dxl.errors import InterruptedSendError
    from txstore.dxl.source import size_of_regular

    last: SendProgress | None = None
    with (
        closing(display(name, size_of_regular(path), quiet=quiet, doing="sending")) as view,
        ctrl_c(link) as again,
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
    if not quiet:
        how = f"in {sent.segments} segments" if sent.segments else "stored already, nothing sent"
        click.echo(f"stored {shown(name)}: {human(sent.size)} {how}, SHA-256 {sent.sha256}")


def _targets(files: tuple[str, ...], to: str | None) -> list[tuple[str, str]]:
    names = [os.path.basename(os.path.abspath(path)) for path in files]
    if to == "":
        raise click.UsageError("--to is empty.")
    if to is not None and not to.endswith("/"):
        if len(files) > 1:
            raise click.UsageError("--to goes with one FILE only, unless it ends with a /.")
        names = [to]
    elif to is not None:
        names = [to + name for name in names]
    if len(set(names)) < len(names):
        raise click.UsageError("Two FILEs would be stored as one. Send them one by one, with --to.")
    return list(zip(files, names, strict=True))


@click.command()
@click.argument("name")
@fabric_options
@click.option(
    "--output",
    callback=options.folder,
    metavar="FILE",
    help="Where to write it, also a folder. [default: NAME's last part]",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def get(
    name: str,
    config_dir: str,
    topic: str,
    timeout: float,
    retry_for: float,
    output: str | None,
    quiet: bool,
) -> None:
    """Get the stored file NAME back from the store on a DXL fabric.

    The file appears whole and verified, or not at all. Run the same command again after an
    interruption and it goes on where it stopped.
    """
    from txstore.dxl.errors import InterruptedSendError
    from txstore.dxl.fetcher import FileFetcher, check_target

    base = os.path.basename(name.rstrip("/"))
    if not base:
        raise click.UsageError("NAME is no file's name.")
    target = base if output is None else output
    if os.path.isdir(target):
        target = os.path.join(target, base)
    with connected(config_dir, timeout, retry_for) as link:
        check_target(target)
        fetcher = FileFetcher(link, store_topic=topic)
        size = fetcher.version(name).size
        with closing(display(name, size, quiet=quiet, doing="getting")) as view, ctrl_c(link):
            link.notice = view.note
            try:
                version = fetcher.get(name, target, lambda done, _size: view.reached(done))
            except InterruptedSendError:
                view.note("stopped; the same command goes on from here")
                raise
    if not quiet:
        click.echo(f"got {shown(target)}: {human(version.size)}, SHA-256 {version.sha256}")


@click.command()
@fabric_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def files(config_dir: str, topic: str, timeout: float, retry_for: float, as_json: bool) -> None:
    """List the files in the store on a DXL fabric.

    A SHA-256 is shown for a file that is as this store published it.
    """
    from txstore.dxl.fetcher import FileFetcher

    with connected(config_dir, timeout, retry_for) as link:
        for file in FileFetcher(link, store_topic=topic).files():
            if as_json:
                click.echo(json.dumps(vars(file)))
                continue
            changed = datetime.fromtimestamp(file.mtime_ns / 1e9, tz=timezone.utc)
            click.echo(
                f"{file.sha256 or '-':64}  {file.size:>14}  {changed:%Y-%m-%dT%H:%M:%SZ}"
                f"  {shown(file.name)}"
            )


def cancel_on_fabric(
    file_id: str,
    config_dir: str,
    *,
    topic: str = STORE_TOPIC,
    timeout: float = 20.0,
    retry_for: float = 60.0,
) -> None:
    """What ``txstore cancel ID --config DIR`` does: drop an unfinished transfer.

    Exits as the commands here do if it cannot be done.
    """
    from txstore.dxl.sender import FileSender

    with connected(config_dir, timeout, retry_for) as link:
        dropped = FileSender(link, store_topic=topic).cancel(file_id)
    if not dropped:
        raise click.ClickException(f"no unfinished transfer {shown(file_id)} is known.")
    click.echo(f"cancelled {shown(file_id)}: {dropped} segments dropped")
