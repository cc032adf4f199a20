"""``txstore files``."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import click

from txstore.cli.fabric import connected, fabric_options
from txstore.cli.options import examples
from txstore.cli.text import shown


@click.command(
    short_help="List the stored files.",
    epilog=examples(
        "txstore files --config /etc/dxl",
        "txstore files --config /etc/dxl --json | jq .name",
    ),
)
@fabric_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def files(config_dir: str, topic: str, timeout: float, retry_for: float, as_json: bool) -> None:
    """List the files in the store on a DXL fabric.

    A SHA-256 is shown for a file that is as this store published it.
    """
    from txstore.dxl import FileFetcher

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
