"""``txstore put``."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import click

from txstore.cli.ahead import Ahead
from txstore.cli.batch import Batch, Outcome
from txstore.cli.interrupts import INTERRUPTED, Interruption
from txstore.cli.options import FILE, examples, folders, limits, rate
from txstore.cli.options import segment_size as size_in_bytes
from txstore.cli.pace import Pace
from txstore.cli.problems import CommandError
from txstore.cli.putting import How, Putting
from txstore.cli.sources import Found, Target, size_of, sum_of, targets, with_trees
from txstore.cli.stream import STDIN, path_of_stdin
from txstore.cli.text import say, shown

if TYPE_CHECKING:
    from txstore.limits import Limits
    from txstore.options import Level

#: Files from which on small ones are put several at once: of few, each is told of as it ends.
_MANY = 16
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
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        batch = Batch(
            *(len(found.targets), sum_of(found.targets)),
            quiet=quiet,
            # Of a tree, the sum.
            lines=not quiet and not as_json and not recursive,
            as_json=as_json,
        )
        stack.enter_context(closing(batch))
        _tell(found, quiet=quiet)
        open_store = partial(
            opened,
            *(storage_dir, working_dir),
            durability=durability,
            on_exists="refuse" if no_clobber else "replace",
            limits=limits,
        )
        how = How(segment_size, preserve, not no_clobber, recursive)
        putting = Putting(open_store, stack, how, Pace(limit_rate, interruption), interruption)
        many = len(found.targets) >= _MANY
        ahead = Ahead(found.targets, putting.put, lambda one: many and putting.may_go_ahead(one))
        with ahead:
            for target in found.targets:
                batch.begin(target.name, target.size)
                try:
                    outcome = ahead.turn() or putting.put(target, batch)
                except click.ClickException:
                    interruption.check()
                    raise
                except KeyboardInterrupt:
                    kept = _NOTHING_KEPT if target.path == STDIN else _KEPT
                    batch.interrupted(
                        Outcome(target.path, target.name, "failed", target.size), kept
                    )
                    ctx.exit(INTERRUPTED)
                batch.end(outcome)
        batch.close()
        if several and not quiet and not as_json:
            say(batch.summary())
    if failed := batch.failed + len(found.errors):
        if several:
            say(f"{failed} of {len(found.targets)} files were not stored.", err=True)
        ctx.exit(INTERRUPTED if interruption.came else 1)


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
