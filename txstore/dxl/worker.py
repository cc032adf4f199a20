"""One serving process: with others under a supervisor, or alone.

``python -m txstore.dxl.worker CONFIG_DIR FD`` is what the supervisor starts.  ``FD`` is a socket to
it: the worker's ``Duty`` comes from there, pickled, with the configuration, whose file may have
changed since the service was started; later another configuration whenever the service reads it
again.  A byte says that the worker is ready, others, now and then, that it lives.  The supervisor's
end, if it dies, ends the worker too.  ``CONFIG_DIR`` is for those who look at a list of processes.
"""

from __future__ import annotations

import logging
import pickle
import signal
import socket
import sys
import threading
from contextlib import suppress

from txstore.dxl.config import ServiceConfig
from txstore.dxl.duty import Duty
from txstore.dxl.heartbeat import Heartbeat
from txstore.dxl.service import FileTransferService
from txstore.dxl.serving import Serving
from txstore.dxl.signals import relayed, reload_signals, stop_signals

logger = logging.getLogger("txstore.dxl.worker")  # also as a program

READY = b"+"
ALIVE = b"."


def _main(_config_dir: str, descriptor: str) -> int:
    supervisor = socket.socket(fileno=int(descriptor))

    def say_alive() -> None:
        # A supervisor that is stopped itself must not stop its workers.
        with suppress(OSError):
            supervisor.send(ALIVE, socket.MSG_DONTWAIT)

    sent = supervisor.makefile("rb")
    try:
        duty: Duty = pickle.load(sent)
    except EOFError:
        return 1  # the supervisor is gone
    metrics = None
    if duty.metrics is not None:
        from txstore.metrics.gathering import count_in

        metrics = count_in(duty.metrics, duty.number)
    alive = Heartbeat(say_alive)

    def make(config: ServiceConfig) -> FileTransferService:
        return FileTransferService(config, on_round=alive, metrics=metrics)

    try:
        duty.logs.open(duty.config)
        serving = Serving(duty.config, make, lambda: supervisor.sendall(READY))
    except ValueError as error:
        # What it names, dxlclient.config and logging.config, was changed since the service started.
        logger.error("The configuration cannot work any more: %s", error)
        return 1

    def watch() -> None:
        with suppress(EOFError, OSError):
            while True:
                config: ServiceConfig = pickle.load(sent)
                with suppress(ValueError):  # which the supervisor has met, too
                    duty.logs.open(config)
                serving.change(config)
        serving.stop()  # the supervisor is gone

    threading.Thread(target=watch, name="txstore-supervisor", daemon=True).start()
    for number in reload_signals():
        # It is told by its supervisor, also where all processes of a service are sent the signal.
        signal.signal(number, signal.SIG_IGN)
    with relayed(*stop_signals(), to=serving.stop):
        return serving.run()


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
