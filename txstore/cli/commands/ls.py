"""``txstore ls``."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from txstore.cli.display import moves_its_cursor
from txstore.cli.options import examples, folders
from txstore.cli.table import beginnings, cut, table, width_of_stdout
from txstore.cli.text import human, lasting, percent, shown
from txstore.cli.transfers import as_json, expires_at, expiry_option

if TYPE_CHECKING:
    from txstore import TransferStatus

#: Seconds between two looks of ``--watch``.
_ROUND = 2.0
#: Characters of a name and of an id that stay where a terminal is narrow.
_NAME, _ID = 16, 12


@click.command(
    short_help="List unfinished transfers.",
    epilog=examples(
        "txstore ls --storage-dir /srv/files",
        "txstore ls --storage-dir /srv/files --watch",
        "txstore ls --storage-dir /srv/files --json | jq '.[].file_id'",
    ),
)
@folders()
@expiry_option("Time without activity after which a transfer is dropped here")
@click.option("--watch", is_flag=True, help="Look again every 2 s, until Ctrl-C.")
@click.option("--json", "in_json", is_flag=True, help="A JSON list, for programs.")
def ls(
    storage_dir: str, working_dir: str | None, expire_after: float, watch: bool, in_json: bool
) -> None:
    """List unfinished transfers, the oldest first.

    Name and total are known where the sender said them with the first segment. On a narrow terminal
    ids are cut; other commands take the beginning of one.
    """
    from txstore.cli.storage import existing

    with existing(storage_dir, working_dir, expire_after=expire_after) as store:
        transfers = store.transfers()
        while watch:
            if not in_json:
                _begin_anew()
            _show(transfers, expire_after, in_json=in_json)
            time.sleep(_ROUND)
            transfers = store.transfers()
    _show(transfers, expire_after, in_json=in_json)


def _show(transfers: list[TransferStatus], expire_after: float, *, in_json: bool) -> None:
    if in_json:
        found = [as_json(transfer, expire_after) for transfer in transfers]
        click.echo(json.dumps(found, indent=2))
        return
    for line in _lines(transfers, expire_after, width_of_stdout()):
        click.echo(line)


def _begin_anew() -> None:
    if moves_its_cursor(sys.stdout):
        click.clear()
    else:
        click.echo(f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}")


def _lines(transfers: list[TransferStatus], expire_after: float, width: int | None) -> list[str]:
    if not transfers:
        return ["No unfinished transfers."]
    now = datetime.now(timezone.utc)
    ids = [shown(transfer.file_id) for transfer in transfers]
    names = [shown(transfer.name or "-") for transfer in transfers]
    columns = {
        "ID": ids,
        "NAME": names,
        "RECEIVED": [human(transfer.bytes_received) for transfer in transfers],
        "TOTAL": ["-" if (n := transfer.size) is None else human(n) for transfer in transfers],
        "PART": [_part(transfer) for transfer in transfers],
        "AGE": [lasting((now - transfer.created_at).total_seconds()) for transfer in transfers],
        "EXPIRES IN": [_expires(transfer, expire_after, now) for transfer in transfers],
        "STATE": [transfer.state for transfer in transfers],
    }
    return table(
        columns,
        width,
        short={
            "NAME": lambda most: [cut(name, max(most, _NAME)) for name in names],
            "ID": lambda most: beginnings(ids, max(most, _ID)),
        },
        spare=["AGE", "STATE", "TOTAL", "NAME", "EXPIRES IN"],
        numbers=["RECEIVED", "TOTAL", "PART", "AGE", "EXPIRES IN"],
    )


def _part(transfer: TransferStatus) -> str:
    return "-" if transfer.size is None else percent(transfer.bytes_received, transfer.size)


def _expires(transfer: TransferStatus, expire_after: float, now: datetime) -> str:
    expires = expires_at(transfer, expire_after)
    return "-" if expires is None else lasting((expires - now).total_seconds())
