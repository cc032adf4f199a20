"""Imported by the server that workers are forked from: what each process does once, is done there.

The store compiles its statements when it first needs them, which takes longer than a test does.
"""

from __future__ import annotations

from crew import cancel, cut, last, segment
from support import LEVELS

from txstore.testing import fresh_store

for _level in LEVELS:
    with fresh_store(durability=_level) as _store:
        for _one in cut(b"abc", 3, file_id="several", name="folder/several"):
            _store.store_segment(_one)
        _store.store_segment(last("one", 1, b"abc", "one", b"abc"))
        for _file_id in ("by message", "by method"):
            _store.store_segment(segment(_file_id, 1, b"a"))
            _store.store_segment(segment(_file_id, 1, b"a"))
        _store.store_segment(cancel("by message"))
        _store.cancel("by method")
        _store.status("several")
        _store.transfers()
        _store.expire()
