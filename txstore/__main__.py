"""``python -m txstore``: the same as the ``txstore`` command."""

from __future__ import annotations

from txstore.cli import main

if __name__ == "__main__":
    main()
