"""The store in two folders, for the commands that work on one.

Importing this takes longer than all else that they do, so each does it when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from txstore import FileStoreManager
from txstore.cli.interrupts import raise_on_ctrl_c
from txstore.cli.problems import EXPECTED, explain
from txstore.local.files.folders import JOURNAL
from txstore.protocol.names import DEFAULT_WORKING_DIR


@contextmanager
def opened(storage_dir: str, working_dir: str | None, **options: Any) -> Iterator[FileStoreManager]:
    """The store, made if it is not there; a store that cannot be opened ends the command."""
    raise_on_ctrl_c()
    try:
        store = FileStoreManager(storage_dir, working_dir, **options)
    except EXPECTED as error:
        raise click.ClickException(f"cannot open the store: {explain(error)}") from error
    with store:
        yield store


@contextmanager
def existing(
    storage_dir: str, working_dir: str | None, **options: Any
) -> Iterator[FileStoreManager]:
    """A store that is there already: who only looks makes no folders."""
    where = working_dir or os.path.join(storage_dir, DEFAULT_WORKING_DIR)
    try:
        if "://" not in where:
            os.stat(os.path.join(where, JOURNAL))
        with opened(storage_dir, working_dir, **options) as store:
            yield store
    except BrokenPipeError:
        raise  # of what is printed: who reads it has enough
    except FileNotFoundError as error:
        raise click.ClickException(
            f"there is no store here: {error.filename} does not exist."
            " Check --storage-dir and --working-dir."
        ) from error
    except EXPECTED as error:
        raise click.ClickException(explain(error)) from error
