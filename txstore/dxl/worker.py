"""One serving process: with others under a supervisor, or alone.

``python -m txstore.dxl.worker CONFIG_DIR FD`` is what the supervisor starts.  ``FD`` is a socket to
it: the worker's ``Duty`` comes from there, pickled, with the configuration, whose file may have
changed since the service was started.  A byte says that the worker is ready, others, now and then,
that it lives.  The supervisor's end, if it dies, ends the worker too.  ``CONFIG_DIR`` is for those
who look at a list of processes.
"""

from __future__ import annotations

import logging
import logging.config
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from txstore.dxl.config import ServiceConfig
from txstore.dxl.duty import Duty
from txstore.dxl.heartbeat import Heartbeat
from txstore.dxl.service import FileTransferService
from txstore.dxl.signals import relayed, stop_signals

logger = logging.getLogger("txstore.dxl.worker")  # also as a program

READY = b"+"
ALIVE = b"."


def set_up_logging(config: ServiceConfig) -> None:
    """As the folder's ``logging.config`` says, else lines on standard error.

    :raises ValueError: ``logging.config`` cannot work
    """
    if config.logging_config is not None:
        try:
            logging.config.fileConfig(config.logging_config, disable_existing_loggers=False)
        except Exception as error:  # whatever the classes and expressions in it raise
            raise ValueError(f"{config.logging_config}: {error}") from error
        return
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s",
    )
    # What matters of it is said by the service in its own words.
    logging.getLogger("dxlclient").setLevel(logging.CRITICAL)


def serve_until_told(
    service: FileTransferService, on_ready: Callable[[], None], stop: threading.Event
) -> int:
    """Serve until ``stop`` is set, by a signal or the caller.

    :param on_ready: called once, when requests are answered for the first time
    :return: the process's exit code: 0 after a clean stop
    """

    with relayed(*stop_signals(), to=stop.set):
        service.start()
        said = False
        while not stop.wait(0.1) and not service.ended.is_set():
            if not said and service.ready.is_set():
                said = True
                on_ready()
        if service.ended.is_set():
            return service.exit_code
        logger.info("Stopping")
        if service.stop():
            return 0
    logger.error("A request did not end in time; leaving it to the next start")
    return 1


def _main(_config_dir: str, descriptor: str) -> int:
    supervisor = socket.socket(fileno=int(descriptor))

    def say_alive() -> None:
        # A supervisor that is stopped itself must not stop its workers.
        with suppress(OSError):
            supervisor.send(ALIVE, socket.MSG_DONTWAIT)

    try:
        with supervisor.makefile("rb") as sent:
            duty: Duty = pickle.load(sent)
    except EOFError:
        return 1  # the supervisor is gone
    try:
        set_up_logging(duty.config)
        metrics = None
        if duty.metrics is not None:
            from txstore.metrics.gathering import count_in

            metrics = count_in(duty.metrics, duty.number)
        service = FileTransferService(duty.config, on_round=Heartbeat(say_alive), metrics=metrics)
    except ValueError as error:
        # What it names, dxlclient.config and logging.config, was changed since the service started.
        logger.error("The configuration cannot work any more: %s", error)
        return 1
    stop = threading.Event()

    def watch() -> None:
        supervisor.recv(1)  # it never sends: this returns when it is gone
        stop.set()

    threading.Thread(target=watch, name="txstore-supervisor", daemon=True).start()
    return serve_until_told(service, lambda: supervisor.sendall(READY), stop)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
