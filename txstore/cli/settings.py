"""What an option is where the command line does not say: an environment variable, else a file.

A variable is called as its option is: ``TXSTORE_STORAGE_DIR`` is ``--storage-dir``.  So is a key of
the file, which is TOML; a key in the table of a command is for that command alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from txstore.cli.options import FILE, FOLDER

#: Options that say what is done this time.  Whoever could set them for all times would be in for a
#: surprise.
ONCE = frozenset(
    {
        *(
            "--all",
            "--dry-run",
            "--exec",
            "--follow",
            "--help",
            "--name",
            "--output",
            "--recursive",
            "--to",
        ),
        *("--version", "--watch", "--yes"),
    }
)

_BAD_CONFIG = 78
#: From strong to weak.
_SOURCES = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


class SettingsError(click.ClickException):
    """The file cannot be used; nothing was done."""

    exit_code = _BAD_CONFIG


def settings_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that can be set elsewhere, by the names that they have there."""
    return {
        param.opts[0].removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option) and param.opts[0] not in ONCE
    }


def give_variables(command: click.Command) -> None:
    """Have the command look at the environment."""
    for name, option in settings_of(command).items():
        option.envvar = _variable(name)
        # In the help, and where it is missing.
        option.show_envvar = option.required


def default_file() -> str | None:
    """The file that is read if no other is asked for; ``None``: there is none."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = os.path.join(folder, "txstore", "config.toml")
    return path if os.path.exists(path) else None


def from_file(path: str, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """What the file says of a command's options, by the names of the parameters.

    :param ctx: that of all commands
    :raises SettingsError: it cannot be read, or says what no command knows
    """
    return _File(path, ctx).options(command)


class _File:
    def __init__(self, path: str, ctx: click.Context) -> None:
        # It takes a moment, and most have no file.
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        assert isinstance(ctx.command, click.Group)
        self._path, self._ctx, self._commands = path, ctx, ctx.command
        try:
            with open(path, encoding="utf-8") as file:
                self._text = file.read()
            self._content = tomllib.loads(self._text)
        except OSError as error:
            raise SettingsError(f"cannot read {path!r}: {error.strerror}.") from error
        except ValueError as error:  # no TOML, no UTF-8
            raise SettingsError(f"{path!r} is no TOML: {error}.") from error

    def options(self, command: click.Command) -> dict[str, Any]:
        """What it says of a command's options."""
        assert command.name is not None
        known = settings_of(command)
        found: dict[str, Any] = {}
        for key, value in self._content.items():
            if key in known:
                found[key] = value
            elif key in self._commands.list_commands(self._ctx):
                if not isinstance(value, dict):
                    self._refuse(key, f"is a command: its options stand below [{key}]")
            elif not any(key in options for options in self._of_all()):
                every = sorted({name for options in self._of_all() for name in options})
                self._unknown(key, every, "each command may have a table of its own")
        for key, value in self._content.get(command.name, {}).items():
            if key not in known:
                self._unknown(key, sorted(known), f"that is all of [{command.name}]")
            found[key] = value
        return {
            str(known[key].name): self._value(key, value, known[key])
            for key, value in found.items()
        }

    def _of_all(self) -> Iterator[dict[str, click.Option]]:
        # One after the other, until it is known: each is imported for this.
        for name in self._commands.list_commands(self._ctx):
            command = self._commands.get_command(self._ctx, name)
            assert command is not None
            yield settings_of(command)

    def _value(self, key: str, value: Any, option: click.Option) -> Any:
        if option.is_flag:
            if not isinstance(value, bool):
                self._refuse(key, "must be true or false")
            return value
        if option.multiple:
            if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
                self._refuse(key, 'must be a list, such as ["one", "two"]')
            return value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._refuse(key, "must be text or a number")
        if option.type in (FOLDER, FILE) and value and "://" not in str(value):
            # Not from the current folder: the file is the same in each of them.
            return os.path.join(
                os.path.dirname(os.path.abspath(self._path)), os.path.expanduser(str(value))
            )
        return str(value)

    def _unknown(self, key: str, known: Iterable[str], more: str) -> NoReturn:
        self._refuse(key, f"is not known. Known are {', '.join(known)}; {more}")

    def _refuse(self, key: str, why: str) -> NoReturn:
        raise SettingsError(f"{self._path!r}, line {self._line(key)}: {key!r} {why}.")

    def _line(self, key: str) -> int:
        """The first line that is about the key: the parser does not tell."""
        about = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[].=]")
        lines = enumerate(self._text.splitlines(), 1)
        return next((number for number, line in lines if about.match(line)), 1)


def tell_source(error: click.BadParameter) -> None:
    """Have the error say where the value comes from, if not from the command line."""
    if error.ctx is None or error.param is None or error.param.name is None:
        return
    source = error.ctx.get_parameter_source(error.param.name)
    if source is ParameterSource.ENVIRONMENT:
        error.param_hint = str(error.param.envvar)
    elif source is ParameterSource.DEFAULT_MAP:
        name = error.param.opts[0].removeprefix("--")
        error.param_hint = f"{name!r} in {error.ctx.find_root().params['config_file']!r}"


def is_on_fabric(ctx: click.Context) -> bool:
    """Whether a command is about the store on a fabric, and not about one on this machine.

    What the command line says counts more than a variable, and a variable more than the file.

    :raises UsageError: neither is said, or both
    """
    local = min(_strength(ctx, "storage_dir"), _strength(ctx, "working_dir"))
    fabric = _strength(ctx, "config_dir")
    if fabric == local < len(_SOURCES):
        raise click.UsageError(
            "--config goes with neither --storage-dir nor --working-dir: say which store is meant."
        )
    if fabric < local:
        return True
    if _strength(ctx, "storage_dir") == len(_SOURCES):
        raise click.UsageError("one of --storage-dir and --config is required.")
    if _strength(ctx, "topic") == 0:
        raise click.UsageError("--topic goes with --config only.")
    return False


def _strength(ctx: click.Context, name: str) -> int:
    source = ctx.get_parameter_source(name)
    return _SOURCES.index(source) if source in _SOURCES else len(_SOURCES)


def _variable(name: str) -> str:
    return "TXSTORE_" + name.replace("-", "_").upper()
