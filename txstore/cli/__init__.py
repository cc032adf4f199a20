"""The ``txstore`` command.

Nothing here is imported by the store itself.  Click and rich come with the extra ``cli``; without
it the command says so instead of showing a traceback.
"""

from __future__ import annotations

import importlib.util
import sys

from txstore.cli.interrupts import INTERRUPTED, end_at_once, on_ctrl_c


def main() -> None:
    """Run the command with the process's arguments and exit with its code."""
    # Imports take a moment, and an exception in the middle of one is not always passed on.  A
    # command has exceptions once it has something to let go of.
    on_ctrl_c(end_at_once)
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"Error: the txstore command needs {' and '.join(missing)}."
            " Install them with: pip install 'txstore[cli]'"
        )
    from txstore.cli.commands import txstore
    from txstore.cli.ending import code_of

    try:
        code = code_of(txstore)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        # All is done: Python's own ending would show a traceback.
        on_ctrl_c(end_at_once)
    sys.exit(code)
