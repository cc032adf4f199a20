"""The ``txstore`` command.

Nothing here is imported by the store itself.  Click and rich come with the extra ``cli``; without
it the command says so instead of showing a traceback.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command with the process's arguments and exit with its code."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"Error: the txstore command needs {' and '.join(missing)}."
            " Install them with: pip install 'txstore[cli]'"
        )
    from txstore.cli.commands import txstore

    txstore(prog_name="txstore")
