"""The ``txstore`` command, and below it a module for each of its commands.

A command's module is imported when the command is asked for, and what takes a moment to import (the
journal's libraries, the fabric's, the bar's) when the command needs it.

Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 78 a configuration that
cannot work, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import platform
import sqlite3
from importlib import import_module

import click

from txstore import __version__
from txstore.cli.options import FILE
from txstore.cli.settings import default_file, from_file, give_variables, tell_source
from txstore.local.journal.revision import REVISION

#: The commands as the help shows them.
GROUPS = {
    "A store on this machine": (
        *("put", "ls", "info", "cancel", "expire", "files", "events"),
        *("check", "verify", "repair", "health", "backup"),
    ),
    "A store over many hosts": ("migrate",),
    "A store on a DXL fabric": ("send", "get", "serve"),
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
        give_variables(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        path = ctx.params.get("config_file")
        # Help is shown whatever the file says, and may be about that.
        wants_help = set(ctx.help_option_names) & set(rest)
        if command is not None and path and not wants_help and not ctx.resilient_parsing:
            ctx.default_map = {str(command.name): from_file(path, command, ctx)}
        return name, command, rest

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.BadParameter as error:
            tell_source(error)
            raise

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


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"txstore {__version__}")
    click.echo(f"Engine local, journal {REVISION}; SQLite {sqlite3.sqlite_version}")
    click.echo(f"Python {platform.python_version()}")
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "`txstore COMMAND --help` tells the options of a command, and shows examples. An option may"
        " also be set by a variable, as --storage-dir is by TXSTORE_STORAGE_DIR, or in the file."
    ),
)
@click.option(
    "--config-file",
    envvar="TXSTORE_CONFIG_FILE",
    type=FILE,
    default=default_file,
    metavar="FILE",
    help="TOML file with options. [default: ~/.config/txstore/config.toml, if it is there]",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of txstore and of what it rests on, and exit.",
)
def txstore(**_: object) -> None:
    """Store files so that they survive being interrupted at any moment."""
