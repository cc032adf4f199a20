"""``txstore cancel``: in a store on this machine, or in the one on a fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from txstore.cli.options import FOLDER, examples, folders, topic_option
from txstore.cli.settings import is_on_fabric
from txstore.cli.text import human, say, shown
from txstore.errors import LockTimeoutError, StagingDamagedError

if TYPE_CHECKING:
    from txstore import FileStoreManager

#: Seconds to wait for one answer of a fabric, and to go on while there is none.
_TIMEOUT = 20.0
_RETRY_FOR = 60.0


@click.command(
    short_help="Drop an unfinished transfer.",
    epilog=examples(
        "txstore cancel put-report-pdf-1f2e3d4c --storage-dir /srv/files",
        "txstore cancel 0d9c63d5-5b1c-4f0c-a3d8-6a6ce1d0f3b1 --config /etc/dxl",
    ),
)
@click.argument("file_id", metavar="ID")
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
@click.pass_context
def cancel(
    ctx: click.Context,
    file_id: str,
    storage_dir: str | None,
    working_dir: str | None,
    config_dir: str | None,
    topic: str | None,
) -> None:
    """Drop the unfinished transfer ID (see `txstore ls`) and its bytes.

    The store is the one in --storage-dir, or with --config the one on a fabric.
    """
    if is_on_fabric(ctx):
        assert config_dir is not None
        _cancel_on_fabric(file_id, config_dir, topic)
        return
    assert storage_dir is not None
    from txstore.cli.storage import existing

    with existing(storage_dir, working_dir) as store:
        try:
            dropped = _drop(store, file_id)
        except LockTimeoutError as error:
            raise click.ClickException(
                f"{shown(file_id)} was not cancelled: another process has been busy with it for"
                f" {error.timeout:g} s ({error.path}). Stop that process, or try again later."
            ) from error
    say(f"cancelled {shown(file_id)}: {dropped} dropped")


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


def _cancel_on_fabric(file_id: str, config_dir: str, topic: str | None) -> None:
    from txstore.cli.fabric import connected
    from txstore.dxl import FileSender
    from txstore.dxl.protocol import STORE_TOPIC

    with connected(config_dir, _TIMEOUT, _RETRY_FOR) as link:
        dropped = FileSender(link, store_topic=topic or STORE_TOPIC).cancel(file_id)
    if not dropped:
        raise click.ClickException(f"no unfinished transfer {shown(file_id)} is known.")
    click.echo(f"cancelled {shown(file_id)}: {dropped} segments dropped")
