"""SHA-256 whose state can be saved with a transfer and taken up again by another process.

``hashlib`` cannot save a running hash.  OpenSSL's ``SHA256_Init/Update/Final`` work on a public
struct that can be copied out and in again: ``SHA256_CTX`` in ``openssl/sha.h``.  It has eight
words, the bit count in two words, 64 bytes of unfinished block, its length, and the digest's
length.  It is reached through ctypes, in the library that ``hashlib`` itself is linked with.  Where
that does not work, ``hashlib`` computes the same hash and ``save`` answers ``None``.  Whoever needs
the hash later then reads the staged bytes once more.

A saved state is canonical: no struct layout, no byte order, no pickle.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

#: version, algorithm (1: SHA-256), bytes hashed, the eight words
_STATE = struct.Struct(">BBQ8I")
_CHECK = struct.Struct(">I")
_VERSION, _SHA256 = 1, 1
_BLOCK = 64


class Hasher(Protocol):
    """A running SHA-256.  Not thread-safe: whoever holds the transfer's lock uses it."""

    total: int

    def update(self, data: bytes) -> None:
        """Hash ``data`` after what came before."""

    def digest(self) -> bytes:
        """The 32 bytes of the hash so far; the hasher can go on."""

    def save(self) -> bytes | None:
        """The state, for ``load``; ``None`` where the backend cannot give it."""

    def copy(self) -> Hasher:
        """An independent hasher in the same state."""


class _HashlibHasher:
    """Fallback: hashes, but cannot be saved."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.total = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.total += len(data)

    def digest(self) -> bytes:
        return self._hash.digest()

    def save(self) -> bytes | None:
        return None

    def copy(self) -> _HashlibHasher:
        other = _HashlibHasher.__new__(_HashlibHasher)
        other._hash, other.total = self._hash.copy(), self.total
        return other


class _Context(ctypes.Structure):
    _fields_ = [
        ("h", ctypes.c_uint32 * 8),
        ("n_low", ctypes.c_uint32),
        ("n_high", ctypes.c_uint32),
        ("data", ctypes.c_uint8 * _BLOCK),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
    ]


#: The same struct as one read of its memory: eight words, bit count, block, fill.
_NATIVE = struct.Struct("=8III64sII")


class _OpenSSLHasher:
    """OpenSSL's SHA-256 on a struct of our own."""

    _init: Any
    _update: Any
    _final: Any

    def __init__(self) -> None:
        self._context = _Context()
        self._init(self._context)
        self.total = 0

    def update(self, data: bytes) -> None:
        self._update(self._context, data, len(data))
        self.total += len(data)

    def digest(self) -> bytes:
        scratch = _Context.from_buffer_copy(self._context)
        out = ctypes.create_string_buffer(32)
        self._final(out, scratch)
        return out.raw

    def save(self) -> bytes | None:
        *words, _low, _high, block, fill, _md = _NATIVE.unpack(self._context)
        body = _STATE.pack(_VERSION, _SHA256, self.total, *words) + block[:fill]
        return bytes(body + _CHECK.pack(zlib.crc32(body)))

    def copy(self) -> _OpenSSLHasher:
        other = type(self).__new__(type(self))
        other._context, other.total = _Context.from_buffer_copy(self._context), self.total
        return other

    def restore(self, total: int, words: tuple[int, ...], tail: bytes) -> None:
        bits = total * 8
        _NATIVE.pack_into(
            self._context, 0, *words, bits & 0xFFFFFFFF, bits >> 32, tail, len(tail), 32
        )
        self.total = total


def _parse(state: bytes | None) -> tuple[int, tuple[int, ...], bytes] | None:
    if state is None or len(state) < _STATE.size + _CHECK.size:
        return None
    body, check = state[: -_CHECK.size], state[-_CHECK.size :]
    version, algorithm, total, *words = _STATE.unpack_from(body)
    tail = body[_STATE.size :]
    if (
        _CHECK.unpack(check)[0] != zlib.crc32(body)
        or (version, algorithm) != (_VERSION, _SHA256)
        or len(tail) != total % _BLOCK
        or total >= 1 << 61  # the bit count is 64 bits wide
    ):
        return None
    return total, tuple(words), tail


def _libraries() -> Iterator[Any]:
    """Where OpenSSL may be found, likeliest first."""
    try:
        import _hashlib
    except ImportError:
        return
    # In FIPS mode OpenSSL's low-level calls may abort the process.
    if _hashlib.get_fips_mode():
        return
    for name in (getattr(_hashlib, "__file__", None), None):  # it may be built in
        try:
            yield ctypes.CDLL(name)
        except OSError:
            continue


def _bind(library: Any) -> type[_OpenSSLHasher] | None:
    """A hasher class over ``library``, if it passes its self-test."""
    try:
        init, update, final = library.SHA256_Init, library.SHA256_Update, library.SHA256_Final
    except AttributeError:
        return None
    init.argtypes = [ctypes.POINTER(_Context)]
    update.argtypes = [ctypes.POINTER(_Context), ctypes.c_char_p, ctypes.c_size_t]
    final.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Context)]
    bound = type(
        "OpenSSLHasher", (_OpenSSLHasher,), {"_init": init, "_update": update, "_final": final}
    )
    return bound if _passes_self_test(bound) else None


def _passes_self_test(hasher: type[_OpenSSLHasher]) -> bool:
    """A known answer, and a save and load inside and at the edge of a block."""
    text = bytes(range(256))
    for cut in (0, 3, 64, 100, 128):
        first = hasher()
        first.update(text[:cut])
        parsed = _parse(first.save())
        if parsed is None:
            return False
        second = hasher()
        second.restore(*parsed)
        second.update(text[cut:])
        if second.digest() != hashlib.sha256(text).digest():
            return False
    return True


def _choose() -> type[_OpenSSLHasher] | None:
    for library in _libraries():
        bound = _bind(library)
        if bound is not None:
            return bound
    return None


_openssl = _choose()

#: ``"openssl"`` where states can be saved, ``"hashlib"`` where they cannot.
BACKEND = "openssl" if _openssl else "hashlib"


def new() -> Hasher:
    """A hasher that has seen no byte."""
    return _openssl() if _openssl else _HashlibHasher()


def total(state: bytes | None) -> int | None:
    """How many bytes a saved state is the hash of, as it says itself; ``None``: it is none."""
    if state is None or len(state) < _STATE.size:
        return None
    return int.from_bytes(state[2:10], "big")


def load(state: bytes | None) -> Hasher | None:
    """The hasher whose ``save`` gave ``state``.

    :return: ``None`` where the backend cannot take up states, or the state's version, length or
        checksum is not right: then the caller hashes the staged bytes from the start
    """
    parsed = _parse(state)
    if parsed is None or _openssl is None:
        return None
    hasher = _openssl()
    hasher.restore(*parsed)
    return hasher


def digest_of(state: bytes | None, offset: int) -> bytes | None:
    """The hash of the first ``offset`` bytes, if a saved state is exactly that; needs no OpenSSL,
    so that any worker can verify what any other recorded."""
    if offset == 0:
        return hashlib.sha256().digest()
    parsed = _parse(state)
    if parsed is None or parsed[0] != offset:
        return None
    hasher = load(state)
    if hasher is not None:
        return hasher.digest()
    total, words, tail = parsed
    block = tail + b"\x80" + bytes((55 - len(tail)) % _BLOCK) + (total * 8).to_bytes(8, "big")
    for start in range(0, len(block), _BLOCK):
        words = _compress(words, block[start : start + _BLOCK])
    return struct.pack(">8I", *words)


def _round_constants() -> Iterator[int]:
    """First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4,
    4.2.2)."""
    for prime in (n for n in range(2, 312) if all(n % p for p in range(2, n))):
        low, high = 0, prime << 32
        while high - low > 1:  # the integer cube root of prime << 96
            middle = (low + high) // 2
            low, high = (middle, high) if middle**3 <= prime << 96 else (low, middle)
        yield low & 0xFFFFFFFF


def _turn(x: int, n: int) -> int:
    return (x >> n | x << 32 - n) & 0xFFFFFFFF


def _compress(words: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """SHA-256's compression of one block; for the last one or two of a saved state only."""
    w = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = _turn(w[i - 15], 7) ^ _turn(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = _turn(w[i - 2], 17) ^ _turn(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = words
    for k, x in zip(_round_constants(), w, strict=True):
        t1 = h + (_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)) + (e & f ^ ~e & g) + k + x
        t2 = (_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t1 + t2) & 0xFFFFFFFF, a, b, c, (d + t1) & 0xFFFFFFFF, e, f, g
    return tuple((x + y) & 0xFFFFFFFF for x, y in zip(words, (a, b, c, d, e, f, g, h), strict=True))
