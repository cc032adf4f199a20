"""``txstore get``."""

from __future__ import annotations

import json
import os
from contextlib import closing

import click

from txstore.cli.display import display
from txstore.cli.fabric import connected, ctrl_c, fabric_options
from txstore.cli.options import FILE, examples
from txstore.cli.text import human, shown
from txstore.errors import InterruptedSendError


@click.command(
    short_help="Get a stored file back.",
    epilog=examples(
        "txstore get report.pdf --config /etc/dxl",
        "txstore get photos/1.jpg --config /etc/dxl --output /tmp/",
    ),
)
@click.argument("name")
@fabric_options()
@click.option(
    "--output",
    type=FILE,
    metavar="FILE",
    help="Where to write it, also a folder. [default: NAME's last part]",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object a file, for programs.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def get(
    name: str,
    config_dir: str,
    topic: str,
    timeout: float,
    retry_for: float,
    output: str | None,
    in_json: bool,
    quiet: bool,
) -> None:
    """Get the stored file NAME back from the store on a DXL fabric.

    The file appears whole and verified, or not at all. Run the same command again after an
    interruption and it goes on where it stopped.
    """
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
        with ctrl_c(link), closing(display(name, size, quiet=quiet, doing="getting")) as view:
            link.notice = view.note
            try:
                version = fetcher.get(name, target, lambda done, _size: view.reached(done))
            except InterruptedSendError:
                view.note("stopped; the same command goes on from here")
                raise
    if in_json:
        found = {"name": name, "path": target, "size": version.size, "sha256": version.sha256}
        click.echo(json.dumps(found))
    elif not quiet:
        click.echo(f"got {shown(target)}: {human(version.size)}, SHA-256 {version.sha256}")
