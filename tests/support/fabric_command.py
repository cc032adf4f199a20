"""The ``txstore`` command in a process of its own, watched while it talks to a fabric."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading

from cli_driver import heeding_ctrl_c
from fabric_broker import PATIENCE, wait_until


class Command:
    """A command in a process of its own; ``output`` holds both its streams."""

    def __init__(self, *arguments: object) -> None:
        self.output: list[str] = []
        self._process = subprocess.Popen(
            heeding_ctrl_c([sys.executable, "-m", "txstore", *map(str, arguments)]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.output.extend(iter(self._process.stdout.readline, ""))

    def wait_line(self, part: str) -> str:
        """The first line of its output with ``part`` in it."""
        wait_until(lambda: any(part in line for line in self.output), f"{part!r}: {self.output}")
        return next(line for line in self.output if part in line)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code, "".join(self.output)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def run(*arguments: object) -> tuple[int, str]:
    """A command's exit code and output."""
    return Command(*arguments).end()
