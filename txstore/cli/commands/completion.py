"""``txstore completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from txstore.cli.options import examples

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print what makes a shell complete commands.",
    epilog=examples(
        "source <(txstore completion bash)",
        "txstore completion bash > ~/.local/share/bash-completion/completions/txstore",
        "txstore completion fish > ~/.config/fish/completions/txstore.fish",
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and values.

    SHELL is bash (4.4 or newer), zsh or fish. Load what is printed when the shell starts.
    """
    program = ctx.find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    one = kind(program.command, {}, "txstore", "_TXSTORE_COMPLETE")
    # Not `source()`: for bash it starts one, to ask for its version.
    click.echo(one.source_template % one.source_vars())
