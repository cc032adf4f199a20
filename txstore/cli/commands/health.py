"""``txstore health``: for whoever asks every few seconds."""

from __future__ import annotations

import json
import sys

import click

from txstore.cli.options import FOLDER, examples, folders, topic_option
from txstore.cli.settings import is_on_fabric
from txstore.cli.text import human, lasting, say, shown

#: Bytes of the working dir's file system below which a full disk is near.
_ROOM = 10 * 1024 * 1024


@click.command(
    short_help="Say in one line whether it works.",
    epilog=examples(
        "txstore health --config /etc/txstore",
        "txstore health --storage-dir /srv/files",
    ),
)
@folders(required=False)
@click.option(
    "--config",
    "config_dir",
    type=FOLDER,
    metavar="DIR",
    help="Folder with dxlclient.config: ask the service on that fabric.",
)
@topic_option(
    help="With --config, topic of the store. [default: what the service's configuration in DIR"
    " says, else that of the file transfer service]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@click.option("--json", "in_json", is_flag=True, help="A JSON object, for programs.")
@click.pass_context
def health(
    ctx: click.Context,
    storage_dir: str | None,
    working_dir: str | None,
    config_dir: str | None,
    topic: str | None,
    timeout: float,
    in_json: bool,
) -> None:
    """Say in one line whether it works: a service that is asked over its fabric, or a store whose
    journal is read. Cheap, and nothing is written. `txstore check` looks at everything.

    Exit codes: 0 it works, 1 it does not.
    """
    from txstore.cli.problems import EXPECTED, explain

    try:
        if is_on_fabric(ctx):
            assert config_dir is not None
            problem, text = None, _of_service(config_dir, topic, timeout)
        else:
            assert storage_dir is not None
            problem, text = _of_store(storage_dir, working_dir, timeout)
    except EXPECTED as error:
        problem, text = explain(error), ""
    if in_json:
        click.echo(
            json.dumps({"ok": problem is None, "text": text if problem is None else problem})
        )
    else:
        say(f"ok: {text}" if problem is None else f"not ok: {shown(problem)}")
    sys.exit(0 if problem is None else 1)


def _of_store(storage_dir: str, working_dir: str | None, timeout: float) -> tuple[str | None, str]:
    from txstore.inspection import StoreInspector

    totals = StoreInspector(storage_dir, working_dir, lock_timeout=timeout).totals()
    free, problem = totals.free, None
    if free is not None and free < _ROOM:
        problem = f"only {human(free)} free"
    count = totals.transfers
    parts = [f"{count} unfinished transfer{'' if count == 1 else 's'}"]
    if count:
        parts.append(f"the oldest since {lasting(totals.oldest_age)}")
    if totals.events_behind:
        parts.append(f"{totals.events_behind} events to be seen")
    if free is not None:
        parts.append(f"{human(free)} free")
    return problem, ", ".join(parts)


def _of_service(config_dir: str, topic: str | None, timeout: float) -> str:
    import logging
    import os
    import time

    from txstore.dxl import Link, ServiceConfig
    from txstore.dxl.client_config import certificate_end, load_client_config
    from txstore.dxl.config import SERVICE_CONFIG
    from txstore.dxl.protocol import STORE_TOPIC, Topics, encode_json

    logging.getLogger("dxlclient").setLevel(logging.CRITICAL)
    if topic is None and os.path.exists(os.path.join(config_dir, SERVICE_CONFIG)):
        topic = ServiceConfig.load(config_dir).topics.store
    status = Topics(topic or STORE_TOPIC).status
    left = certificate_end(load_client_config(config_dir)) - time.time()
    with Link(config_dir, answer_timeout=timeout, retry_for=timeout) as link:
        began = time.monotonic()
        link.once(status, encode_json({"file_id": "health"}))
        took = time.monotonic() - began
    return f"answered in {took * 1000:.0f} ms, the certificate ends in {lasting(left)}"
