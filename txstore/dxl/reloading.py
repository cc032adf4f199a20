"""A service's configuration, read again while it runs."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import Any

from txstore.dxl.client_config import load_client_config
from txstore.dxl.config import ServiceConfig
from txstore.dxl.logs import Logs
from txstore.errors import ConfigError

logger = logging.getLogger(__name__)

#: What stays as long as the service runs: its workers, which change one after the other, would work
#: over two stores, or answer for each other no more.
_FIXED = ("storage_dir", "working_dir", "topics", "share_group", "mode", "allow_network_fs")

#: Options that are not called as the attributes are.
_NAMES = {
    "topics": "storeTopic",
    "threads": "threadCount",
    "events_exec": "exec",
    "events_webhook": "webhook",
    "events_secret_file": "secretFile",
}


def read_again(current: ServiceConfig, logs: Logs) -> ServiceConfig:
    """Read the folder of configuration again, open the logs anew, and say what that comes to.

    :return: what is to be served from now on; ``current``, if what stands there cannot work
    """
    try:
        read = ServiceConfig.load(current.config_dir)
        load_client_config(current.config_dir)
        logs.open(read)
    except (ConfigError, ValueError) as error:
        logger.error("Nothing is changed, since the new configuration cannot work: %s", error)
        return current
    logger.info("The logs were opened anew")
    for what in read.ignored:
        logger.warning("Ignored: %s", what)
    taken = replace(read, **{name: getattr(current, name) for name in _FIXED})
    for option in _changed(taken, read):
        logger.warning("%s stays as it was until the service is restarted", option)
    changed = ", ".join(_changed(current, taken))
    logger.info("Options that changed: %s. Connecting anew with them", changed or "none")
    return taken


def _changed(old: Any, new: Any) -> list[str]:
    """The options that are not the same in two configurations, or in parts of them."""
    found = []
    for one in fields(old):
        before, after = getattr(old, one.name), getattr(new, one.name)
        if before == after or one.name == "ignored":
            continue
        found += _changed(before, after) if one.name == "limits" else [_option(one.name)]
    return found


def _option(name: str) -> str:
    first, *rest = name.split("_")
    return _NAMES.get(name, first + "".join(word.capitalize() for word in rest))
