"""``txstore files``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import click

from txstore.cli.fabric import connected, fabric_options
from txstore.cli.options import examples, folders
from txstore.cli.settings import is_on_fabric
from txstore.cli.text import shown


@click.command(
    short_help="List the stored files.",
    epilog=examples(
        "txstore files --storage-dir /srv/files",
        "txstore files --config /etc/dxl",
        "txstore files --config /etc/dxl --json | jq .name",
    ),
)
@folders(required=False)
@fabric_options(required=False)
@click.option("--json", "in_json", is_flag=True, help="One JSON object a line, for programs.")
@click.pass_context
def files(
    ctx: click.Context,
    storage_dir: str | None,
    working_dir: str | None,
    config_dir: str | None,
    topic: str,
    timeout: float,
    retry_for: float,
    in_json: bool,
) -> None:
    """List the stored files of the store in --storage-dir, or of the one on a fabric.

    A SHA-256 is shown for a file that is as the catalogue says.
    """
    if is_on_fabric(ctx):
        from txstore.dxl import FileFetcher

        assert config_dir is not None
        with connected(config_dir, timeout, retry_for) as link:
            for listed in FileFetcher(link, store_topic=topic).files():
                _show(vars(listed), in_json=in_json)
        return
    from txstore.cli.storage import existing

    assert storage_dir is not None
    with existing(storage_dir, working_dir) as store:
        for stored in store.stored():
            _show(stored._asdict(), in_json=in_json)


def _show(file: Mapping[str, Any], *, in_json: bool) -> None:
    if in_json:
        click.echo(json.dumps(file))
        return
    changed = datetime.fromtimestamp(file["mtime_ns"] / 1e9, tz=timezone.utc)
    click.echo(
        f"{file['sha256'] or '-':64}  {file['size']:>14}  {changed:%Y-%m-%dT%H:%M:%SZ}"
        f"  {shown(file['name'])}"
    )
