"""Where a service logs, and how its lines look."""

from __future__ import annotations

import logging
import logging.config
import sys

from txstore.dxl.config import ServiceConfig


def set_up_logging(config: ServiceConfig) -> None:
    """As the folder's ``logging.config`` says, else lines on standard error.  Called again it opens
    the files anew.

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
