"""``txstore info``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from txstore.cli.options import examples, folders
from txstore.cli.text import human, lasting, percent, shown
from txstore.cli.transfers import as_json, expires_at, expiry_option, meant_by

if TYPE_CHECKING:
    from txstore import TransferStatus


@click.command(
    short_help="Show all that is known of a transfer.",
    epilog=examples(
        "txstore info put-report-pdf --storage-dir /srv/files",
        "txstore info put-report-pdf --storage-dir /srv/files --json",
    ),
)
@click.argument("file_id", metavar="ID")
@folders()
@expiry_option("Time without activity after which a transfer is dropped here")
@click.option("--json", "in_json", is_flag=True, help="A JSON object, for programs.")
def info(
    file_id: str, storage_dir: str, working_dir: str | None, expire_after: float, in_json: bool
) -> None:
    """Show all that is known of the transfer ID, or of the one whose id begins so.

    What a crash left of it is settled first. A finished one is known for a day.
    """
    from txstore.cli.storage import existing

    with existing(storage_dir, working_dir, expire_after=expire_after) as store:
        file_id = meant_by(store, file_id)
        found = store.status(file_id)
    if found is None:
        raise click.ClickException(f"no transfer {shown(file_id)} is known.")
    if in_json:
        click.echo(json.dumps(as_json(found, expire_after), indent=2))
        return
    for title, text in _facts(found, expire_after):
        click.echo(f"{title:<10}  {text}")


def _facts(found: TransferStatus, expire_after: float) -> list[tuple[str, str]]:
    now = datetime.now(timezone.utc)
    received = human(found.bytes_received)
    if found.size is not None:
        part = percent(found.bytes_received, found.size)
        received += f" of {human(found.size)} ({part})"
    expires = expires_at(found, expire_after)
    return [
        ("ID", shown(found.file_id)),
        ("Name", "not known" if found.name is None else shown(found.name)),
        ("State", found.state),
        ("Received", received),
        ("Segments", str(found.segments_received)),
        ("SHA-256", found.sha256 or "not known"),
        ("Began", _ago(found.created_at, now)),
        ("Last seen", _ago(found.updated_at, now)),
        ("Expires in", "never" if expires is None else lasting((expires - now).total_seconds())),
    ]


def _ago(at: datetime, now: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {lasting((now - at).total_seconds())} ago"
