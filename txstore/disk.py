"""``Disk``: every call to the operating system, one method each.

A test that has calls fail passes its own to a manager, as ``disk=``.  What is not said of a method
is what the kernel does; each raises the kernel's ``OSError``.
"""

from __future__ import annotations

from txstore.local.files.disk import Disk

__all__ = ["Disk"]
