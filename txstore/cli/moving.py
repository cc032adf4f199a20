"""What ``migrate`` shows on its way."""

from __future__ import annotations

from txstore.cli.display import Display, NoDisplay, display
from txstore.migration import Amount, Watcher


class Progress(Watcher):
    """Files and transfers together, and their bytes.

    :param quiet: whether nothing is shown
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._view: Display = NoDisplay()
        self._turns, self._came = 0, 0

    def begin(self, amount: Amount) -> None:
        """Show how much it is."""
        number = amount.files + amount.transfers
        size = amount.file_bytes + amount.transfer_bytes
        name = f"{number} files"
        self._view = display(name, size, quiet=self._quiet, doing="moving", files=number)

    def turn(self, what: str) -> None:
        """Name it."""
        self._view.turn(what, self._turns)
        self._turns += 1

    def came(self, size: int) -> None:
        """Move on."""
        self._came += size
        self._view.reached(self._came)

    def close(self) -> None:
        """Take the display away."""
        self._view.close()
