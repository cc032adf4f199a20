"""``txstore ls``."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from txstore.cli.options import examples, folders
from txstore.cli.text import human, lasting, shown

if TYPE_CHECKING:
    from txstore import TransferStatus


@click.command(
    epilog=examples(
        "txstore ls --storage-dir /srv/files",
        "txstore ls --storage-dir /srv/files --json | jq '.[].file_id'",
    )
)
@folders()
@click.option("--json", "as_json", is_flag=True, help="A JSON list, for programs.")
def ls(storage_dir: str, working_dir: str | None, as_json: bool) -> None:
    """List unfinished transfers, the oldest first."""
    from txstore.cli.storage import existing

    with existing(storage_dir, working_dir) as store:
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
    return f"{lasting(seconds)} ago"
