"""What the commands on a fabric have in common: options, the way there, Ctrl-C, exit codes.

Importing this module is cheap: the fabric's library is imported when it is needed.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from txstore.cli import options
from txstore.cli.display import shown
from txstore.cli.problems import explain
from txstore.dxl.protocol import STORE_TOPIC, checked_topic

if TYPE_CHECKING:
    from txstore.dxl.link import Link

FAILED = 1
BAD_CONFIG = 78
INTERRUPTED = 130


def topic_option(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A topic that messages can be sent to."""
    try:
        return value if value is None else checked_topic(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error


def fabric_options(command: options.Command) -> options.Command:
    """The options that say which store, and how long to wait for it."""
    for option in (
        click.option(
            "--retry-for",
            type=click.FloatRange(min=0),
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to go on while nothing goes forward.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=20.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for one answer.",
        ),
        click.option(
            "--topic",
            callback=topic_option,
            default=STORE_TOPIC,
            metavar="TOPIC",
            help="Topic of the store. [default: that of the file transfer service]",
        ),
        click.option(
            "--config",
            "config_dir",
            required=True,
            callback=options.folder,
            metavar="DIR",
            help="Folder with dxlclient.config, which selects the fabric.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def connected(config_dir: str, timeout: float, retry_for: float) -> Iterator[Link]:
    """A link; what goes wrong on it ends the command with a message."""
    from txstore.dxl.errors import ConfigError, FabricError, InterruptedSendError
    from txstore.dxl.link import Link

    def notice(text: str) -> None:
        click.echo(shown(text), err=True)

    _quiet_library()
    try:
        with Link(config_dir, answer_timeout=timeout, retry_for=retry_for, notice=notice) as link:
            yield link
    except ConfigError as error:
        click.echo(f"Error: the configuration cannot work: {shown(str(error))}", err=True)
        sys.exit(BAD_CONFIG)
    except (InterruptedSendError, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        raise  # not worth a word: who reads what is printed has enough
    except (FabricError, OSError) as error:
        click.echo(f"Error: {shown(explain(error))}", err=True)
        sys.exit(FAILED)


def _quiet_library() -> None:
    # It logs each lost connection on several lines; what matters of it the commands say.
    logging.getLogger("dxlclient").setLevel(logging.CRITICAL)


@contextmanager
def ctrl_c(link: Link) -> Iterator[threading.Event]:
    """The first Ctrl-C stops the link, the next one sets the event."""
    from txstore.dxl.signals import relayed

    again = threading.Event()

    def came() -> None:
        if link.stop.is_set():
            again.set()
        link.stop.set()

    with relayed(signal.SIGINT, to=came):
        yield again
