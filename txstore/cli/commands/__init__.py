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

#: The commands as the help shows them.
GROUPS = {
    "A store on this machine": ("put", "ls", "cancel", "expire", "check", "repair"),
    "A store on a DXL fabric": ("send", "files", "get", "serve"),
    "The command itself": ("completion",),
}


class _Commands(click.Group):
    """Its commands are the functions of the same name in the modules of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(name for names in GROUPS.values() for name in names)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Each group's texts begin in the same column.
        widest = max(map(len, self.list_commands(ctx)))
        limit = formatter.width - widest - 6
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(widest), command.get_short_help_str(limit))
                        for name in names
                        if (command := self.get_command(ctx, name)) is not None
                    ]
                )


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`txstore COMMAND --help` tells the options of a command, and shows examples.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def txstore() -> None:
    """Store files so that they survive being interrupted at any moment."""
