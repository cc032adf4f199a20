"""``txstore cancel``: in a store on this machine, or in the one on a fabric."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from txstore.cli.options import FOLDER, examples, folders, topic_option
from txstore.cli.problems import EXPECTED, CommandError, explain
from txstore.cli.settings import is_on_fabric
from txstore.cli.text import human, say, shown
from txstore.cli.transfers import meant_by
from txstore.errors import LockTimeoutError, StagingDamagedError

if TYPE_CHECKING:
    from txstore import FileStoreManager

#: Seconds to wait for one answer of a fabric, and to go on while there is none.
_TIMEOUT = 20.0
_RETRY_FOR = 60.0


@dataclass(frozen=True)
class Cancelled:
    """What became of a transfer, and an object of ``--json``.

    :ivar segments: that were dropped
    :ivar bytes: likewise; ``None``: not known
    :ivar error: why it was not cancelled
    """

    file_id: str
    status: Literal["cancelled", "stored", "unknown", "failed"]
    segments: int = 0
    bytes: int | None = None
    error: str | None = None


@click.command(
    short_help="Drop unfinished transfers.",
    epilog=examples(
        "txstore cancel put-report-pdf-7c14be98d2a03f55-1f2e3d4c --storage-dir /srv/files",
        "txstore cancel --all --yes --storage-dir /srv/files",
        "txstore cancel 0d9c63d5-5b1c-4f0c-a3d8-6a6ce1d0f3b1 --config /etc/dxl",
    ),
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@folders(required=False)
@click.option(
    "--config",
    "config_dir",
    type=FOLDER,
    metavar="DIR",
    help="Folder with dxlclient.config: ID is in the store on that fabric.",
)
@topic_option(
    help="With --config, topic of the store. [default: that of the file transfer service]"
)
@click.option("--all", "everything", is_flag=True, help="Drop all unfinished transfers.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "in_json", is_flag=True, help="A JSON list, for programs.")
@click.pass_context
def cancel(
    ctx: click.Context,
    ids: tuple[str, ...],
    storage_dir: str | None,
    working_dir: str | None,
    config_dir: str | None,
    topic: str | None,
    everything: bool,
    yes: bool,
    in_json: bool,
) -> None:
    """Drop each unfinished transfer ID (see `txstore ls`) and its bytes.

    The store is the one in --storage-dir, or with --config the one on a fabric. On this machine the
    beginning of an id will do if no other one begins so; then the command asks first.
    """
    if everything == bool(ids):
        raise click.UsageError("say which: either IDs, or --all.")
    if is_on_fabric(ctx):
        assert config_dir is not None
        if everything:
            raise click.UsageError("--all goes with --storage-dir only.")
        done = _cancel_on_fabric(ids, config_dir, topic)
    else:
        assert storage_dir is not None
        from txstore.cli.storage import existing

        with existing(storage_dir, working_dir) as store:
            chosen = _chosen(store, ids, yes=yes)
            done = [_cancel(store, file_id) for file_id in chosen]
            if everything and not done and not in_json:
                say("No unfinished transfers.")
    if in_json:
        click.echo(json.dumps([asdict(one) for one in done], indent=2))
    for one in done:
        _tell(one, quiet=in_json)
    ctx.exit(int(any(one.status != "cancelled" for one in done)))


def _tell(one: Cancelled, *, quiet: bool) -> None:
    if one.error is not None:
        say(f"Error: {one.error}", err=True)
    elif not quiet:
        dropped = f"{one.segments} segments" if one.bytes is None else human(one.bytes)
        say(f"cancelled {shown(one.file_id)}: {dropped} dropped")


def _chosen(store: FileStoreManager, given: tuple[str, ...], *, yes: bool) -> list[str]:
    """The ids that are meant; who did not write all of one is asked.

    A script's id may be the beginning of another one, and have been finished meanwhile.
    """
    if not given:
        ids = [transfer.file_id for transfer in store.transfers()]
        what = f"all unfinished transfers, {len(ids)} of them" if ids else ""
    else:
        try:
            ids = list(dict.fromkeys(meant_by(store, one) for one in given))
        except CommandError as error:
            raise click.ClickException(str(error)) from error
        what = ", ".join(shown(one) for one in ids if one not in given)
    if not what or yes:
        return ids
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would drop {what}. Say --yes where nobody can be asked.")
    if not click.confirm(f"Drop {what}?", err=True):
        raise click.ClickException("nothing was done.")
    return ids


def _cancel(store: FileStoreManager, file_id: str) -> Cancelled:
    name = shown(file_id)
    try:
        try:
            found = store.status(file_id)
        except StagingDamagedError:
            found = None  # its bytes are lost, and the more is it to be dropped
        segments = store.cancel(file_id).segments_received
        if segments:
            size = found.bytes_received if found else None
            return Cancelled(file_id, "cancelled", segments, size)
        # It may have been finished since.
        if store.status(file_id) is None:
            error = f"no transfer {name} is known; nothing was done."
            return Cancelled(file_id, "unknown", error=error)
        return Cancelled(file_id, "stored", error=f"{name} is stored already; nothing was done.")
    except LockTimeoutError as error:
        text = (
            f"{name} was not cancelled: another process has been busy with it for"
            f" {error.timeout:g} s ({error.path}). Stop that process, or try again later."
        )
        return Cancelled(file_id, "failed", error=text)
    except EXPECTED as error:
        return Cancelled(file_id, "failed", error=f"{name} was not cancelled: {explain(error)}")


def _cancel_on_fabric(ids: tuple[str, ...], config_dir: str, topic: str | None) -> list[Cancelled]:
    from txstore.cli.fabric import connected
    from txstore.dxl import FileSender
    from txstore.dxl.protocol import STORE_TOPIC

    done = []
    with connected(config_dir, _TIMEOUT, _RETRY_FOR) as link:
        sender = FileSender(link, store_topic=topic or STORE_TOPIC)
        for file_id in ids:
            if dropped := sender.cancel(file_id):
                done.append(Cancelled(file_id, "cancelled", dropped))
            else:
                error = f"no unfinished transfer {shown(file_id)} is known."
                done.append(Cancelled(file_id, "unknown", error=error))
    return done
