"""Resumable uploads over HTTP with FastAPI: each request carries one segment.

Run it with any number of workers over one storage, and kill them as you like::

    pip install txstore fastapi uvicorn
    uvicorn fastapi_upload:app --workers 4

A client sends segments, and after a lost answer asks where to resume::

    PUT /uploads/report/1                                            first part
    GET /uploads/report                                              {"segments_received": 1, ...}
    PUT /uploads/report/2?name=report.txt&size=20&sha256=<64 digits>  last part

A client that goes away in the middle cancels its request.  What the store has begun it ends: the
segment is taken, or it is not, and the client that sends it again gets the same answer.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException

from txstore.aio import FileStoreManager

store = FileStoreManager(os.environ.get("STORAGE_DIR", "storage"), threads=8)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The store is open as long as requests come, and what has begun ends before it is closed."""
    async with store:
        yield


app = FastAPI(lifespan=lifespan)


@contextmanager
def as_http_errors() -> Iterator[None]:
    """What the sender did wrong is a 400; what the disk did is a 503, to be tried again."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    except OSError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error


@app.put("/uploads/{file_id}/{number}")
async def put_segment(
    file_id: str,
    number: int,
    data: Annotated[bytes, Body(media_type="application/octet-stream")] = b"",
    name: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> dict[str, Any]:
    """Take a segment.  The last one names the file, its size and its SHA-256."""
    fields: dict[str, Any] = {"file_id": file_id, "segment_number": number}
    if name is not None:
        fields |= {"result": "store", "name": name, "size": size, "hash_sha256": sha256}
    with as_http_errors():
        answer = await store.store_segment(SimpleNamespace(payload=data, other_fields=fields))
    return answer.to_dict()


@app.get("/uploads/{file_id}")
async def get_status(file_id: str) -> dict[str, Any]:
    """How far an upload came."""
    with as_http_errors():
        status = await store.status(file_id)
    if status is None:
        raise HTTPException(404, "No such upload: start at segment 1.")
    return {
        "segments_received": status.segments_received,
        "bytes_received": status.bytes_received,
        "state": status.state,
    }


@app.delete("/uploads/{file_id}")
async def cancel(file_id: str) -> dict[str, Any]:
    """Drop an unfinished upload."""
    with as_http_errors():
        return (await store.cancel(file_id)).to_dict()
