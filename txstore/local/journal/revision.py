"""Which tables a journal has.  Told apart from them, so that who asks need not load them."""

from __future__ import annotations

#: Newest revision under ``migrations/versions``.
REVISION = "0007"
