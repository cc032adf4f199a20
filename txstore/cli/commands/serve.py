"""``txstore serve``: the configuration checked, then one worker or a supervisor of several."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from txstore.cli.fabric import BAD_CONFIG
from txstore.cli.interrupts import raise_on_ctrl_c
from txstore.cli.options import FOLDER, examples
from txstore.cli.problems import explain
from txstore.cli.text import say, shown
from txstore.errors import ConfigError, MissingExtraError, OptionError
from txstore.protocol.names import is_within

if TYPE_CHECKING:
    from txstore.dxl import ServiceConfig
    from txstore.dxl.logs import Logs
    from txstore.dxl.systemd import Herald


@click.command(
    short_help="Store what senders send.",
    epilog=examples(
        "txstore serve /etc/dxlfiletransferservice",
        "txstore serve /etc/dxlfiletransferservice --workers 4",
    ),
)
@click.argument("config_dir", metavar="CONFIG_DIR", type=FOLDER)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that serve, each started again when it dies.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    callback=lambda _context, _parameter, text: text and _address(text),
    help="Tell Prometheus, at this address, what is done. Needs the extra `metrics`.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How log lines on standard error look; a logging.config in CONFIG_DIR says it itself.",
)
def serve(config_dir: str, workers: int, metrics: tuple[str, int] | None, log_format: str) -> None:
    """Store what senders on a DXL fabric send.

    CONFIG_DIR holds dxlclient.config and dxlfiletransferservice.config, as upstream's service has
    them. Prints a line when requests are answered; stops cleanly on SIGTERM and Ctrl-C. On SIGHUP
    it reads them again; but where it runs in a terminal, that is closing, and it stops.
    Exits with code 78 at once if the configuration cannot work, with 75 when the storage or the
    working dir was removed or replaced: start it again then.
    """
    from txstore.dxl.logs import Logs
    from txstore.dxl.supervisor import Supervisor
    from txstore.dxl.systemd import Herald

    raise_on_ctrl_c()
    try:
        config = _checked_config(config_dir)
        logs = Logs(as_json=log_format == "json")
        logs.open(config)
    except (ConfigError, OSError, ValueError) as error:
        click.echo(f"Error: the configuration cannot work: {shown(str(error))}", err=True)
        sys.exit(BAD_CONFIG)

    for what in config.ignored:
        logging.getLogger("txstore.dxl").warning("Ignored: %s", what)

    def say_ready() -> None:
        who = "1 worker" if workers == 1 else f"{workers} workers"
        # It serves, whether or not somebody reads this.
        say(f"txstore: ready, {who}, {config.topics.store} -> {shown(config.storage_dir)}")

    herald = Herald(say_ready)
    if metrics is not None:
        sys.exit(_serve_with_metrics(config, workers, metrics, herald, logs))
    if workers > 1:
        sys.exit(Supervisor(config, workers, herald, logs).run())
    sys.exit(_serve_alone(config, herald, logs))


def _serve_alone(config: ServiceConfig, herald: Herald, logs: Logs) -> int:
    """One worker, in this process."""
    from txstore.dxl import FileTransferService
    from txstore.dxl.reloading import read_again
    from txstore.dxl.serving import Serving
    from txstore.dxl.signals import relayed, reload_signals, stop_signals

    def make(config: ServiceConfig) -> FileTransferService:
        return FileTransferService(config, on_round=herald.alive)

    def reload() -> None:
        nonlocal config
        herald.reloading()
        config = read_again(config, logs)
        serving.change(config)

    serving = Serving(config, make, herald.ready, herald.stopping)
    with relayed(*reload_signals(), to=reload), relayed(*stop_signals(), to=serving.stop):
        return serving.run()


def _serve_with_metrics(
    config: ServiceConfig,
    workers: int,
    address: tuple[str, int],
    herald: Herald,
    logs: Logs,
) -> int:
    """Workers, be it one, under a supervisor that tells what they count."""
    from txstore.dxl.supervisor import Supervisor

    try:
        from txstore.dxl.exposing import facts
        from txstore.metrics.gathering import Gathering
    except ModuleNotFoundError as error:
        raise click.UsageError(str(MissingExtraError("metrics", "--metrics"))) from error
    host, port = address
    with ExitStack() as ends:
        try:
            gathering = Gathering(workers, lambda: facts(supervisor, config.config_dir))
            ends.callback(gathering.close)
            supervisor = Supervisor(config, workers, herald, logs, gathering.folder)
            port = gathering.serve(host, port)
        except OSError as error:
            text = f"Error: --metrics {host}:{port} cannot be: {explain(error)}"
            click.echo(shown(text), err=True)
            return BAD_CONFIG
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        logging.getLogger("txstore.dxl").info("Metrics are at %s", url)
        return supervisor.run()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"should be an address such as 127.0.0.1:9464, not {text!r}")
    return host, int(port)


def _checked_config(config_dir: str) -> ServiceConfig:
    from txstore.dxl import ServiceConfig
    from txstore.dxl.client_config import load_client_config
    from txstore.dxl.service import open_store

    config = ServiceConfig.load(config_dir)
    load_client_config(config.config_dir)
    try:
        open_store(config).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            config.path, f"[General] {_option_at_fault(config, error)}: {explain(error)}"
        ) from error
    return config


def _option_at_fault(config: ServiceConfig, error: Exception) -> str:
    if isinstance(error, OptionError):
        first, *rest = error.option.split("_")
        return first + "".join(word.capitalize() for word in rest)
    path, working_dir = getattr(error, "filename", None), config.working_dir
    if not isinstance(path, str) or working_dir is None or is_within(config.storage_dir, path):
        return "storageDir"
    # Where a folder above it cannot be made, that one is named.
    at_fault = is_within(path, working_dir) or is_within(working_dir, path)
    return "workingDir" if at_fault else "storageDir"
