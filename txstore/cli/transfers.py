"""What the commands tell of transfers, and which ones their arguments mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from txstore.cli.options import duration
from txstore.cli.problems import CommandError
from txstore.cli.text import shown

if TYPE_CHECKING:
    from txstore import FileStoreManager, TransferStatus

_MOST_NAMED = 5


def expiry_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--expire-after``."""
    return click.option(
        "--expire-after",
        callback=duration,
        default="7d",
        show_default=True,
        metavar="TIME",
        help=f"{help_text}: 90s, 15m, 12h, 7d.",
    )


def expires_at(transfer: TransferStatus, expire_after: float) -> datetime | None:
    """When it is dropped if nobody goes on with it; ``None``: never, it is finished."""
    if transfer.state == "stored":
        return None
    return transfer.updated_at + timedelta(seconds=expire_after)


def as_json(transfer: TransferStatus, expire_after: float) -> dict[str, object]:
    """All of it, for programs."""
    expires = expires_at(transfer, expire_after)
    return asdict(transfer) | {
        "created_at": transfer.created_at.isoformat(),
        "updated_at": transfer.updated_at.isoformat(),
        "expires_at": expires and expires.isoformat(),
    }


def meant_by(store: FileStoreManager, given: str) -> str:
    """The id of the unfinished transfer that is given, or with which it begins.

    What no id begins with is returned as it is: the transfer may have been finished.

    :raises CommandError: several ids begin with it
    """
    found = [transfer.file_id for transfer in store.transfers(given)]
    if given in found or not found:
        return given
    if len(found) > 1:
        named = ", ".join(map(shown, found[:_MOST_NAMED]))
        more = ", ..." if len(found) > _MOST_NAMED else ""
        raise CommandError(
            f"{shown(given)} is the beginning of {len(found)} ids: {named}{more}. Say more of it."
        )
    return found[0]
