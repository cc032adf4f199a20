"""How every command ends: with its exit code and at most a line, never with a traceback."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

import click

from txstore.cli.interrupts import INTERRUPTED
from txstore.cli.problems import explain
from txstore.cli.text import say


def code_of(command: click.Command) -> int:
    """Run a command with the process's arguments; the code to exit with."""
    # What the store logs it also raises, as far as a person can do anything about it; without a
    # handler Python would print it raw.
    logging.getLogger("txstore").addHandler(logging.NullHandler())
    try:
        return _run(command)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)


def _run(command: click.Command) -> int:
    try:
        # Click's own way of ending takes Ctrl-C for a failure and shows other errors raw.
        code = command.main(prog_name="txstore", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except MemoryError as error:
        say(f"Error: {explain(error)}", err=True)
        return 1
    except OSError as error:
        # Commands see to all files themselves; what is left is what they print.
        where = "standard output" if error.filename is None else repr(error.filename)
        say(f"Error: cannot write to {where}: {error.strerror or error}.", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _let_go(stream: TextIO | None) -> None:
    """Do not let Python try again, as it exits, to write what could not be written."""
    if stream is None:
        return  # the command was started without it
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
