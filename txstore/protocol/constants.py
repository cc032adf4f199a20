"""The names and values that travel in messages: equal to those of ``dxlfiletransferclient``."""

from __future__ import annotations


class HashType:
    """Kinds of hash a file is checked with."""

    SHA256 = "sha256"


class FileStoreProp:
    """Fields of a request's and of an answer's dictionary."""

    ID = "file_id"
    NAME = "name"
    SIZE = "size"
    HASHES = "hashes"
    HASH_SHA256 = "hash_sha256"
    SEGMENT_NUMBER = "segment_number"
    SEGMENTS_RECEIVED = "segments_received"
    TOTAL_SEGMENTS = "total_segments"
    RESULT = "result"


class FileStoreResultProp:
    """What a last message asks for, and what the answer says was done."""

    CANCEL = "cancel"
    STORE = "store"
    NONE = None
