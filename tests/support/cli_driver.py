"""Ways to run the ``txstore`` command: in this process, and as a real process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from txstore.cli.commands import txstore

#: For ``after_ack``.
KILL = "os.kill(os.getpid(), signal.SIGKILL)"

_MAIN = "\nfrom txstore.cli import main\nmain()\n"


def put(source: Path, storage: Path, *more: object) -> list[object]:
    """Arguments that store a file in segments of 1 KiB; `more` come after them, and win."""
    options = ("--segment-size", "1KiB", "--durability", "none", "--storage-dir", storage)
    return ["put", source, *options, *more]


def run(*args: object, code: int = 0, answer: str | None = None) -> Result:
    """Run the command in this process; it ends with `code` and never with a traceback."""
    result = CliRunner().invoke(txstore, [str(arg) for arg in args], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


_HEED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def heeding_ctrl_c(command: list[str]) -> list[str]:
    """The command, such that Ctrl-C reaches it: what a script started with ``&`` ignores it, and
    so do its children."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        return command
    return [sys.executable, "-c", _HEED, *command]


def start(
    *args: object,
    setup: str | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[str]:
    """Start the command as a process; `setup` is Python that it runs first."""
    how = ["-m", "txstore"] if setup is None else ["-c", setup + _MAIN]
    return subprocess.Popen(
        heeding_ctrl_c([sys.executable, *how, *map(str, args)]),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=os.environ | {"COLUMNS": "120", "TERM": "xterm"},
    )


def run_process(
    *args: object, setup: str | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process; it ends with `code` and never with a traceback."""
    process = start(*args, setup=setup)
    out, err = process.communicate()
    assert process.returncode == code, (process.returncode, out, err)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def after_ack(number: int, action: str) -> str:
    """Setup that does `action` (Python) once `number` segments of this run were acknowledged."""
    return f"""
import errno, os, signal, sys
from txstore.store import FileStoreManager
store_segment = FileStoreManager.store_segment
acked = 0
def counting(self, message):
    global acked
    answer = store_segment(self, message)
    acked += 1
    if acked == {number}:
        {action}
    return answer
FileStoreManager.store_segment = counting
"""
