"""``txstore put``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from txstore.cli.batch import Batch, Outcome, Status
from txstore.cli.interrupts import INTERRUPTED, Interruption
from txstore.cli.options import FILE, examples, folders, limits, rate
from txstore.cli.options import segment_size as size_in_bytes
from txstore.cli.pace import Pace
from txstore.cli.problems import EXPECTED, CommandError, explain
from txstore.cli.put import Acked, NameTaken, Put, Stored
from txstore.cli.sources import Found, Target, size_of, source_at, sum_of, targets, with_trees
from txstore.cli.stream import STDIN, Stream, path_of_stdin
from txstore.cli.text import say, shown

if TYPE_CHECKING:
    from txstore import FileStoreManager
    from txstore.limits import Limits
    from txstore.options import Level
    from txstore.source import Source

#: Bytes of a segment where none are said, and how many segments a file then has.
_SMALLEST, _LARGEST, _SEGMENTS = 2**20, 2**24, 128
_KEPT = "What has arrived is kept: the same command goes on from there."
_NOTHING_KEPT = "Nothing of it is kept, since it cannot be read again."


@click.command(
    short_help="Store files; run again, it goes on.",
    epilog=examples(
        "txstore put report.pdf --storage-dir /srv/files",
        "txstore put *.jpg --storage-dir /srv/files --name photos/",
        "txstore put big.iso --storage-dir /srv/files --segment-size 8MiB --durability file",
        "txstore put -r photos --storage-dir /srv/files --json",
        "pg_dump shop | txstore put - --name shop.sql --storage-dir /srv/files",
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@folders()
@click.option(
    "--name",
    help="Name to store FILE as; with a / at its end, a folder. [default: FILE's own last part]",
)
@click.option(
    "--segment-size",
    callback=size_in_bytes,
    default="auto",
    show_default=True,
    metavar="BYTES",
    help="Bytes a message, also as 50KiB; auto: a 128th of FILE, from 1MiB to 16MiB.",
)
@click.option(
    "--durability",
    type=click.Choice(["segment", "file", "none"]),
    default="segment",
    show_default=True,
    help="What survives a power loss: every segment, finished files, or nothing.",
)
@click.option(
    *("--recursive", "-r"),
    is_flag=True,
    help="Store what is in a folder, too, under names that keep its tree.",
)
@click.option(
    "--preserve/--no-preserve",
    default=True,
    show_default=True,
    help="Give what is stored the permissions and time of its FILE.",
)
@click.option("--no-clobber", is_flag=True, help="Leave a file that has the name as it is.")
@click.option(
    "--limit-rate",
    callback=rate,
    metavar="BYTES",
    help="Bytes a second at most, also as 500KiB or 10MiB.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, for programs.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@limits
@click.pass_context
def put(
    ctx: click.Context,
    files: tuple[str, ...],
    storage_dir: str,
    working_dir: str | None,
    name: str | None,
    segment_size: int | None,
    durability: Level,
    recursive: bool,
    preserve: bool,
    no_clobber: bool,
    limit_rate: int | None,
    as_json: bool,
    quiet: bool,
    limits: Limits,
) -> None:
    """Store each FILE; run the same command again after an interruption to go on.

    FILE may be - for standard input, with --name.
    """
    from txstore.cli.storage import opened

    found = _found(files, name, storage_dir, working_dir, recursive=recursive)
    several = len(found.targets) > 1 or recursive
    store: FileStoreManager | None = None
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        pace = Pace(limit_rate, interruption)
        batch = Batch(
            *(len(found.targets), sum_of(found.targets)),
            quiet=quiet,
            # Of a tree, the sum.
            lines=not quiet and not as_json and not recursive,
            as_json=as_json,
        )
        stack.enter_context(closing(batch))
        _tell(found, quiet=quiet)
        for target in found.targets:
            batch.begin(target.name, target.size)
            outcome = Outcome(target.path, target.name, "failed", target.size)
            try:
                with _opened(target, recursive=recursive) as source:
                    if store is None:
                        store = stack.enter_context(
                            opened(
                                *(storage_dir, working_dir),
                                durability=durability,
                                on_exists="refuse" if no_clobber else "replace",
                                limits=limits,
                            )
                        )
                    interruption.check()
                    most = pace.segment_size(segment_size or _fitting(target.size))
                    way = (
                        Stream(store, target.name, most, interruption, replace=not no_clobber)
                        if source is None
                        else Put(store, source, most, preserve=preserve, replace=not no_clobber)
                    )
                    outcome = _put(way, batch, pace, interruption, outcome)
            except click.ClickException:
                interruption.check()
                raise
            except (*EXPECTED, MemoryError) as error:
                outcome = replace(outcome, error=explain(error))
            except KeyboardInterrupt:
                batch.interrupted(outcome, _NOTHING_KEPT if target.path == STDIN else _KEPT)
                ctx.exit(INTERRUPTED)
            batch.end(outcome)
        batch.close()
        if several and not quiet and not as_json:
            say(batch.summary())
    if failed := batch.failed + len(found.errors):
        if several:
            say(f"{failed} of {len(found.targets)} files were not stored.", err=True)
        ctx.exit(INTERRUPTED if interruption.came else 1)


def _fitting(size: int | None) -> int:
    """Bytes of a segment: each is flushed, and what is flushed is not sent again.

    :param size: of the file; ``None``: not known.  Then nothing is kept of what is cut off.
    """
    return _LARGEST if size is None else min(max(size // _SEGMENTS, _SMALLEST), _LARGEST)


def _found(
    files: tuple[str, ...],
    name: str | None,
    storage_dir: str,
    working_dir: str | None,
    *,
    recursive: bool,
) -> Found:
    if STDIN in files:
        if len(files) > 1 or not name or name.endswith("/"):
            raise click.UsageError("- is standard input: it goes alone, and with a --name.")
        try:
            path = path_of_stdin()
        except CommandError as error:
            raise click.ClickException(str(error)) from error
        if path is None:
            return Found([Target(STDIN, name, None)], [], [])
        files = (path,)
    named = targets(files, name, "--name")
    if not recursive:
        return Found([Target(path, target, size_of(path)) for path, target in named], [], [])
    # The storage may lie below: what is in it is stored already.
    return with_trees(named, "--name", filter(None, (storage_dir, working_dir)))


def _tell(found: Found, *, quiet: bool) -> None:
    for error in found.errors:
        say(f"Error: cannot read {error.filename!r}: {error.strerror}.", err=True)
    for path in () if quiet else found.skipped:
        say(f"skipped {shown(path)}: it is neither a file nor a folder", err=True)


@contextmanager
def _opened(target: Target, *, recursive: bool) -> Iterator[Source | None]:
    """The source; ``None`` for standard input."""
    if target.path == STDIN:
        yield None
        return
    if not recursive and os.path.isdir(target.path):
        raise CommandError(f"{target.path!r}: Is a directory. -r stores what is in it.")
    with source_at(target.path, target.name) as source:
        yield source


def _put(
    way: Put | Stream, batch: Batch, pace: Pace, interruption: Interruption, outcome: Outcome
) -> Outcome:
    started = time.monotonic()
    sent = 0
    status: Status = "stored"
    pace.wait()
    # Closed at once where it is left: what it has to let go of needs the store.
    with closing(way.run()) as events:
        for event in events:
            if isinstance(event, Acked | Stored):
                sent += event.sent
                pace.sent(event.sent)
            if isinstance(event, Stored):
                if event.already:
                    status = "already_stored"
                elif event.by_another:
                    status = "stored_by_another"
                break
            if isinstance(event, NameTaken):
                return replace(outcome, status="name_taken", sent=sent)
            batch.show(event)
            interruption.check()
            pace.wait()
    seconds = time.monotonic() - started
    return replace(
        outcome,
        status=status,
        size=way.size,
        sent=sent,
        seconds=round(seconds, 6),
        sha256=way.sha256(),
    )
