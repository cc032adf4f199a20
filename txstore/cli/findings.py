"""What ``check`` and ``repair`` print of findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from txstore.cli.text import say, shown

if TYPE_CHECKING:
    from txstore.checks import Finding

#: Exit codes: something is wrong; it could not be looked at.
WRONG, NOT_LOOKED_AT = 1, 2
#: Kinds that say that something could not be looked at.
_NOT_LOOKED_AT = ("busy", "unreadable")


class CouldNotLookError(click.ClickException):
    """Ends the command where it could not look."""

    exit_code = NOT_LOOKED_AT


@contextmanager
def could_look() -> Iterator[None]:
    """End with the exit code for it where a store cannot be looked at."""
    from txstore.cli.problems import EXPECTED, explain

    try:
        yield
    except FileNotFoundError as error:
        raise CouldNotLookError(
            f"there is no store here: {error.filename} does not exist."
            " Check --storage-dir and --working-dir."
        ) from error
    except EXPECTED as error:
        raise CouldNotLookError(explain(error)) from error


def show(found: Finding) -> None:
    """Print a finding: what is wrong, and what to do about it."""
    say(f"{found.kind}: {shown(found.meaning)}")
    say(f"    {found.remedy}")


def code_of(findings: list[Finding]) -> int:
    """The exit code for findings."""
    if any(one.kind in _NOT_LOOKED_AT for one in findings):
        return NOT_LOOKED_AT
    return WRONG if findings else 0
