"""Events, beside any engine: read in order (``feed``), and brought to others (``deliver``)."""

from __future__ import annotations

from txstore.events.feed import Delivery, Feed
from txstore.protocol.event import Consumer, Event

__all__ = ["Consumer", "Delivery", "Event", "Feed"]
