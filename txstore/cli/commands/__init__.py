"""The ``txstore`` command, and below it a module for each of its commands.

A command's module is imported when the command is asked for, and what takes a moment to import (the
journal's libraries, the fabric's, the bar's) when the command needs it.

Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 78 a configuration that
cannot work, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from importlib import import_module

import click

from txstore import __version__

_COMMANDS = (
    *("cancel", "check", "expire", "files", "get", "ls", "put", "repair", "send", "serve"),
)


class _Commands(click.Group):
    """Its commands are the functions of the same name in the modules of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def txstore() -> None:
    """Store files so that they survive being interrupted at any moment."""
