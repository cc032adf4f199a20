"""``Disk``: all calls to the operating system, for tests that have them fail (``disk=``)."""

from __future__ import annotations

from txstore.local.files.disk import Disk

__all__ = ["Disk"]
