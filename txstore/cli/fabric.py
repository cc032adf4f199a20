"""What the commands on a fabric have in common: options, the way there, Ctrl-C, exit codes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from txstore.cli.interrupts import INTERRUPTED, raise_on_ctrl_c
from txstore.cli.options import FOLDER, Command, topic_option
from txstore.cli.problems import explain
from txstore.cli.text import shown
from txstore.dxl.protocol import STORE_TOPIC
from txstore.dxl.signals import relayed
from txstore.errors import ConfigError, InterruptedSendError, TxStoreError

if TYPE_CHECKING:
    from txstore.dxl import Link

FAILED = 1
BAD_CONFIG = 78


def fabric_options(*, required: bool = True) -> Callable[[Command], Command]:
    """The options that say which store, and how long to wait for it."""
    options = (
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
        topic_option(
            default=STORE_TOPIC,
            help="Topic of the store. [default: that of the file transfer service]",
        ),
        click.option(
            "--config",
            "config_dir",
            required=required,
            type=FOLDER,
            metavar="DIR",
            help="Folder with dxlclient.config, which selects the fabric.",
        ),
    )

    def decorate(command: Command) -> Command:
        for option in options:
            command = option(command)
        return command

    return decorate


@contextmanager
def connected(config_dir: str, timeout: float, retry_for: float) -> Iterator[Link]:
    """A link; what goes wrong on it ends the command with a message."""
    from txstore.dxl import Link

    raise_on_ctrl_c()

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
    except (TxStoreError, OSError) as error:
        click.echo(f"Error: {shown(explain(error))}", err=True)
        sys.exit(FAILED)


def _quiet_library() -> None:
    # It logs each lost connection on several lines; what matters of it the commands say.
    logging.getLogger("dxlclient").setLevel(logging.CRITICAL)


@contextmanager
def ctrl_c(link: Link) -> Iterator[threading.Event]:
    """The first Ctrl-C stops the link, the next one sets the event."""
    again = threading.Event()

    def came() -> None:
        if link.stop.is_set():
            again.set()
        link.stop.set()

    with relayed(signal.SIGINT, to=came):
        yield again
