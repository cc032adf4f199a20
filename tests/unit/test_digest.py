"""The running hash: right on every split, saved and taken up anywhere, or not taken up at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import FULL, Booted, at_each_level, published, send, sha256, transfer_messages

from txstore import FileStoreManager, digest
from txstore.digest import Hasher
from txstore.disk import Disk
from txstore.options import Level

DATA = random.Random("digest").randbytes(100_000)

with_openssl = pytest.mark.skipif(
    digest.BACKEND != "openssl", reason="this Python's hashlib is not built on an OpenSSL of use"
)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Have new hashers come from OpenSSL, or from hashlib as where there is no OpenSSL."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "hashlib":
            patch.setattr(digest, "_openssl", None)
        yield


@pytest.fixture(params=[pytest.param("openssl", marks=with_openssl), "hashlib"])
def each_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with backend(request.param):
        yield


# An SHA-256 of our own, slow and plain, which can begin at any state

_K = struct.unpack(
    ">64I",
    bytes.fromhex("""
    428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5
    d807aa98 12835b01 243185be 550c7dc3 72be5d74 80deb1fe 9bdc06a7 c19bf174
    e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa 5cb0a9dc 76f988da
    983e5152 a831c66d b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967
    27b70a85 2e1b2138 4d2c6dfc 53380d13 650a7354 766a0abb 81c2c92e 92722c85
    a2bfe8a1 a81a664b c24b8b70 c76c51a3 d192e819 d6990624 f40e3585 106aa070
    19a4c116 1e376c08 2748774c 34b0bcb5 391c0cb3 4ed8aa4a 5b9cca4f 682e6ff3
    748f82ee 78a5636f 84c87814 8cc70208 90befffa a4506ceb bef9a3f7 c67178f2
    """),
)
_START = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_MASK = 0xFFFFFFFF


def _turn(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & _MASK


def _compress(words: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    w = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = _turn(w[i - 15], 7) ^ _turn(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = _turn(w[i - 2], 17) ^ _turn(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & _MASK)
    a, b, c, d, e, f, g, h = words
    for k, one in zip(_K, w, strict=True):
        s1 = _turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)
        t1 = h + s1 + (e & f ^ ~e & g) + k + one
        s0 = _turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)
        t2 = s0 + (a & b ^ a & c ^ b & c)
        h, g, f, e, d, c, b, a = g, f, e, (d + t1) & _MASK, c, b, a, (t1 + t2) & _MASK
    return tuple((x + y) & _MASK for x, y in zip(words, (a, b, c, d, e, f, g, h), strict=True))


def absorb(words: tuple[int, ...], data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The state after all whole blocks of ``data``, and what is left of it."""
    whole = len(data) - len(data) % 64
    for start in range(0, whole, 64):
        words = _compress(words, data[start : start + 64])
    return words, data[whole:]


def finish(words: tuple[int, ...], total: int, tail: bytes) -> bytes:
    padding = b"\x80" + bytes((55 - total) % 64) + struct.pack(">Q", total * 8)
    words, rest = absorb(words, tail + padding)
    assert rest == b""
    return struct.pack(">8I", *words)


def state(
    words: tuple[int, ...], total: int, tail: bytes, *, version: int = 1, algorithm: int = 1
) -> bytes:
    """A saved state, as it is laid down for good: journals keep them."""
    body = struct.pack(">BBQ8I", version, algorithm, total, *words) + tail
    return body + struct.pack(">I", zlib.crc32(body))


def test_the_plain_sha256_is_right() -> None:
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000):
        words, tail = absorb(_START, DATA[:size])
        assert finish(words, size, tail) == hashlib.sha256(DATA[:size]).digest()


# Hashing


@st.composite
def splits(draw: st.DrawFn) -> list[bytes]:
    """Some bytes in some pieces, many of them at the edges of blocks."""
    size = st.one_of(
        st.integers(0, 200), st.sampled_from([0, 1, 55, 56, 63, 64, 65, 127, 128, 4096])
    )
    sizes = draw(st.lists(size, max_size=12))
    return [
        DATA[start : start + size]
        for start, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False)
    ]


def updated(parts: list[bytes]) -> Hasher:
    hasher = digest.new()
    for part in parts:
        hasher.update(part)
    return hasher


@given(splits())
def test_any_split_has_hashlibs_hash(parts: list[bytes]) -> None:
    for name in ("openssl", "hashlib"):
        with backend(name):
            hasher = digest.new()
            seen = b""
            for part in parts:
                hasher.update(part)
                seen += part
                assert hasher.total == len(seen)
                assert hasher.digest() == hashlib.sha256(seen).digest()


@given(splits(), splits())
def test_a_copy_goes_its_own_way(first: list[bytes], second: list[bytes]) -> None:
    for name in ("openssl", "hashlib"):
        with backend(name):
            hasher = updated(first)
            other = hasher.copy()
            for part in second:
                other.update(part)
            begun, all_of_it = b"".join(first), b"".join(first + second)
            assert (hasher.total, other.total) == (len(begun), len(all_of_it))
            assert hasher.digest() == hashlib.sha256(begun).digest()
            assert other.digest() == hashlib.sha256(all_of_it).digest()


@pytest.mark.usefixtures("each_backend")
def test_a_file_beyond_512_mib_has_hashlibs_hash() -> None:
    """There the count of bits needs a second word."""
    chunk = bytes(range(256)) * 4096
    hasher, right = digest.new(), hashlib.sha256()
    for _ in range(5000 if FULL else 513):
        hasher.update(chunk)
        right.update(chunk)
    assert hasher.total > 1 << 29
    assert hasher.digest() == right.digest()
    taken_up = digest.load(hasher.save())
    if taken_up is not None:
        taken_up.update(b"tail")
        right.update(b"tail")
        assert taken_up.digest() == right.digest()


# Saving and taking up


@with_openssl
@given(splits())
def test_a_state_saved_at_every_split_is_taken_up(parts: list[bytes]) -> None:
    hasher = digest.new()
    seen = b""
    for part in parts:
        taken_up = digest.load(hasher.save())
        assert taken_up is not None
        assert taken_up.total == len(seen)
        assert taken_up.digest() == hasher.digest()
        hasher = taken_up
        hasher.update(part)
        seen += part
    assert hasher.digest() == hashlib.sha256(seen).digest()


@with_openssl
def test_a_state_is_the_same_however_the_bytes_came() -> None:
    """Nothing of what was in a block before is left in it."""
    for size in (0, 1, 63, 64, 65, 1000):
        at_once = updated([DATA[:size]]).save()
        one_by_one = updated([DATA[i : i + 1] for i in range(size)]).save()
        assert at_once == one_by_one
        words, tail = absorb(_START, DATA[:size])
        assert at_once == state(words, size, tail)


def test_without_openssl_no_state_is_saved_or_taken_up() -> None:
    with backend("hashlib"):
        assert updated([b"abc"]).save() is None
        assert updated([b"abc"]).copy().save() is None
        assert digest.load(state(_START, 3, b"abc")) is None


@with_openssl
@given(
    st.sampled_from(
        [
            64,
            2**29 - 64,
            2**29 - 1,
            2**29,
            2**29 + 1,
            2**32 - 64,
            2**32,
            2**35 + 9,
            2**60,
            2**61 - 200,
        ]
    ),
    st.integers(0, 63),
    st.integers(0, 130),
    st.randoms(use_true_random=False),
)
def test_a_state_of_any_length_goes_on_right(
    base: int, fill: int, more: int, source: random.Random
) -> None:
    """Also where the count of bits fills both of its words, which no test could hash up to."""
    total = base + fill
    words = tuple(source.getrandbits(32) for _ in range(8))
    tail, added = source.randbytes(total % 64), source.randbytes(more)
    hasher = digest.load(state(words, total, tail))
    assert hasher is not None
    assert hasher.total == total
    assert hasher.digest() == finish(words, total, tail)
    hasher.update(added)
    words, tail = absorb(words, tail + added)
    assert hasher.digest() == finish(words, total + more, tail)
    assert hasher.save() == state(words, total + more, tail)


# States that are not taken up


@with_openssl
@pytest.mark.parametrize("size", [0, 3, 63, 64, 100])
def test_a_damaged_state_is_not_taken_up(size: int) -> None:
    good = updated([DATA[:size]]).save()
    assert good is not None
    assert digest.load(good) is not None
    for bit in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        assert digest.load(bytes(damaged)) is None
    for length in range(len(good)):
        assert digest.load(good[:length]) is None
        assert digest.load(good[length + 1 :]) is None
    assert digest.load(good + b"\0") is None
    assert digest.load(good + good) is None


@with_openssl
@pytest.mark.parametrize(
    "foreign",
    [
        None,
        b"",
        bytes(46),
        bytes(112),
        b"\x80\x04}.",
        state(_START, 3, b"abc", version=0),
        state(_START, 3, b"abc", version=2),
        state(_START, 3, b"abc", algorithm=0),
        state(_START, 3, b"abc", algorithm=2),
        state(_START, 3, b"ab"),
        state(_START, 3, b"abcd"),
        state(_START, 0, bytes(64)),
        state(_START, 64, bytes(64)),
        state(_START, 2**61, b""),
        state(_START, 2**64 - 64, b""),
    ],
    ids=repr,
)
def test_a_foreign_state_is_not_taken_up(foreign: bytes | None) -> None:
    assert digest.load(foreign) is None


@with_openssl
@given(st.binary(max_size=200))
def test_noise_is_not_taken_up(noise: bytes) -> None:
    assert digest.load(noise) is None


# Which backend is chosen

_SHOW = """
import hashlib
from txstore import digest
hasher = digest.new()
for part in (b"a" * 100, b"", b"b" * 28, b"c"):
    hasher.update(part)
assert hasher.digest() == hashlib.sha256(b"a" * 100 + b"b" * 28 + b"c").digest()
assert (hasher.save() is None) == (digest.BACKEND == "hashlib")
print(digest.BACKEND)
"""

#: As ctypes sees a library, but its functions are Python's.
_FAKE = """
import ctypes, _hashlib
load = ctypes.CDLL
class Function:
    def __init__(self, call):
        self.call = call
    def __call__(self, *args):
        return self.call(*args)
class Library:
    def __init__(self, name):
        real = load(_hashlib.__file__)
        self.SHA256_Init = real.SHA256_Init
        self.SHA256_Update = real.SHA256_Update
        self.SHA256_Final = real.SHA256_Final
        update = real.SHA256_Update
        forgetful = Function(lambda c, data, size: update(ctypes.byref(c), data, size // 2))
        idle = Function(lambda c: None)
        {damage}
ctypes.CDLL = Library
"""

_ONLY_NONE = """
import ctypes
load = ctypes.CDLL
def find(name):
    if name is not None:
        raise OSError("no such library")
    return load(name)
ctypes.CDLL = find
"""


@with_openssl
@pytest.mark.parametrize(
    ("setup", "backends"),
    [
        ("", {"openssl"}),
        (_FAKE.format(damage="pass"), {"openssl"}),
        # In FIPS mode a low-level call may abort the process: none may be made.
        (
            "import _hashlib, ctypes\n_hashlib.get_fips_mode = lambda: 1\nctypes.CDLL = exit",
            {"hashlib"},
        ),
        ("import sys\nsys.modules['_hashlib'] = None", {"hashlib"}),
        (
            "import ctypes\ndef CDLL(name): raise OSError('no such library')\nctypes.CDLL = CDLL",
            {"hashlib"},
        ),
        # The next place to look in may have it or not.
        (_ONLY_NONE, {"openssl", "hashlib"}),
        (_FAKE.format(damage="del self.SHA256_Final"), {"hashlib"}),
        # It looks right, and hashes wrong: the self-test finds out.
        (_FAKE.format(damage="self.SHA256_Update = forgetful"), {"hashlib"}),
        (_FAKE.format(damage="self.SHA256_Init = idle"), {"hashlib"}),
    ],
    ids=[
        "as it is",
        "as it is, wrapped",
        "FIPS mode",
        "hashlib without OpenSSL",
        "no library",
        "not where hashlib says",
        "a function is missing",
        "forgets bytes",
        "forgets to begin",
    ],
)
def test_what_cannot_be_relied_on_is_passed_over(setup: str, backends: set[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", setup + _SHOW], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() in backends
    assert process.stderr == ""


# In a store: workers with and without it take turns

SIZE = 1000
PARTS = 5
FILE = DATA[: SIZE * PARTS - 100]


class ReadingDisk(Disk):
    """Counts the bytes that are read of staging files."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        found = super().pread(fd, size, offset)
        if "/staging/" in os.readlink(f"/proc/self/fd/{fd}"):
            self.bytes_read += len(found)
        return found


@with_openssl
@pytest.mark.parametrize("fresh", [False, True], ids=["two workers", "a worker a segment"])
def test_any_workers_in_any_order_store_the_file(tmp_path: Path, fresh: bool) -> None:
    """Every order of five segments among workers with OpenSSL and without."""
    live = {
        name: FileStoreManager(tmp_path, durability="none", disk=ReadingDisk())
        for name in ("openssl", "hashlib")
    }
    for order in itertools.product(live, repeat=PARTS):
        file_id = "-".join(order)
        messages = transfer_messages(FILE, SIZE, name=file_id, file_id=file_id)
        for number, (name, one) in enumerate(zip(order, messages, strict=True), 1):
            with backend(name):
                if fresh:
                    with FileStoreManager(tmp_path, durability="none") as store:
                        store.store_segment(one)
                else:
                    live[name].store_segment(one)
                if number < PARTS:
                    [listed] = live[name].transfers()
                    assert listed.sha256 in (None, sha256(FILE[: SIZE * number]))
                    assert listed.sha256 is not None or "hashlib" in order[:number]
        assert Path(tmp_path, file_id).read_bytes() == FILE
    for store in live.values():
        store.close()


@with_openssl
@at_each_level
@pytest.mark.parametrize("order", ["own", "other", "own other own other"])
def test_status_tells_the_hash_so_far_whoever_wrote_last(
    tmp_path: Path, level: Level, order: str
) -> None:
    with FileStoreManager(tmp_path, durability=level) as store:
        messages = transfer_messages(FILE, SIZE)
        for number, who in zip(range(1, PARTS), itertools.cycle(order.split()), strict=False):
            with backend("openssl" if who == "own" else "hashlib"):
                with FileStoreManager(tmp_path, durability=level) as other:
                    other.store_segment(messages[number - 1])
                found = store.status("transfer")
                assert found is not None
                assert found.sha256 == sha256(FILE[: SIZE * number])


_WORKER = """
import _hashlib, json, sys
_hashlib.get_fips_mode = lambda: 1
from txstore import FileStoreManager, digest
assert digest.BACKEND == "hashlib"
class Message: pass
storage, level, *messages = json.loads(sys.stdin.read())
with FileStoreManager(storage, durability=level) as store:
    for payload, fields in messages:
        message = Message()
        message.payload, message.other_fields = bytes.fromhex(payload), fields
        print(store.store_segment(message).segments_received)
    print(store.transfers()[0].sha256)
"""


@with_openssl
@at_each_level
def test_a_process_in_fips_mode_takes_its_turn(tmp_path: Path, level: Level) -> None:
    """The hash is caught up by reading, once, what it wrote."""
    disk = ReadingDisk()
    one, two, three, four, five = transfer_messages(FILE, SIZE)
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        store.store_segment(one)
        turns = [(m.payload.hex(), m.other_fields) for m in (two, three)]
        process = subprocess.run(
            [sys.executable, "-c", _WORKER],
            input=json.dumps([str(tmp_path), level, *turns]),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert process.stdout.split() == ["2", "3", "None"]
        disk.bytes_read = 0
        store.store_segment(four)
        assert disk.bytes_read <= 2 * len(FILE)  # the bytes of 2 and 3; at most all, twice
        store.store_segment(five)
        assert published(store) == {"file.bin": FILE}


@with_openssl
def test_a_reboot_into_a_python_without_openssl_loses_no_acknowledged_segment(
    tmp_path: Path,
) -> None:
    """As into FIPS mode: what is verified after a reboot was promised all the same."""
    *begun, last = transfer_messages(FILE, SIZE)
    with FileStoreManager(tmp_path, durability="segment", disk=Booted("one")) as store:
        send(store, begun)
    rebooted = Booted("two")
    with (
        backend("hashlib"),
        FileStoreManager(tmp_path, durability="segment", disk=rebooted) as store,
    ):
        found = store.status("transfer")
        assert found is not None
        assert found.segments_received == len(begun)
        assert store.store_segment(last).file_result == "store"
        assert published(store) == {"file.bin": FILE}


# In a store: what is read


@with_openssl
@at_each_level
def test_a_restart_reads_no_staged_byte(tmp_path: Path, level: Level) -> None:
    messages = transfer_messages(DATA, 10_000)
    for one in messages[:-1]:
        disk = ReadingDisk()
        with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
            store.store_segment(one)
            assert disk.bytes_read == 0
            status = store.status("transfer")
            assert status is not None
            assert status.sha256 is not None
            assert len(store.transfers()) == 1
            assert disk.bytes_read == 0
            # A repeat is compared with what was staged, and that alone.
            store.store_segment(one)
            assert disk.bytes_read == len(one.payload)
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        disk.bytes_read = 0
        store.store_segment(messages[-1])
        # At level "file" what others staged is read and written anew before its first flush.
        assert disk.bytes_read <= (len(DATA) if level == "file" else 0)
        assert published(store) == {"file.bin": DATA}


def test_without_openssl_each_byte_is_read_at_most_once_a_worker(tmp_path: Path) -> None:
    disks = [ReadingDisk(), ReadingDisk()]
    with backend("hashlib"):
        stores = [FileStoreManager(tmp_path, durability="none", disk=disk) for disk in disks]
        for disk in disks:
            disk.bytes_read = 0
        messages = transfer_messages(DATA, 1000)
        for number, one in enumerate(messages):
            stores[number % 2].store_segment(one)
            assert all(disk.bytes_read <= 1000 * number for disk in disks)
            assert all(found.sha256 is None for found in stores[0].transfers())
        assert published(stores[0]) == {"file.bin": DATA}
        for store in stores:
            store.close()


@with_openssl
def test_a_worker_with_openssl_reads_only_what_others_added_without(tmp_path: Path) -> None:
    disk = ReadingDisk()
    messages = transfer_messages(DATA, 1000)
    with FileStoreManager(tmp_path, durability="none", disk=disk) as store:
        for one in messages[:50]:
            store.store_segment(one)
        with backend("hashlib"), FileStoreManager(tmp_path, durability="none") as other:
            send(other, messages[50:53])
        disk.bytes_read = 0
        store.store_segment(messages[53])
        assert disk.bytes_read == 3000
        # A third one needs nothing but what the journal keeps.
        disk.bytes_read = 0
        with FileStoreManager(tmp_path, durability="none", disk=disk) as third:
            disk.bytes_read = 0
            send(third, messages[54:])
            assert disk.bytes_read == 0
        assert published(store) == {"file.bin": DATA}


# In a store: a state that the journal lost


def _flip(saved: bytes) -> bytes:
    return saved[:5] + bytes([saved[5] ^ 1]) + saved[6:]


@with_openssl
@at_each_level
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: None,
        lambda _: b"",
        lambda _: b"noise" * 20,
        lambda saved: saved[:-1],
        _flip,
        lambda _: updated([DATA]).save(),  # of more bytes than are staged
        lambda _: updated([]).save(),
        lambda _: updated(
            [FILE[:SIZE]]
        ).save(),  # an older one: a worker without OpenSSL wrote last
    ],
    ids=["none", "empty", "noise", "cut", "flipped", "ahead", "of nothing", "older"],
)
def test_a_state_that_cannot_be_used_costs_a_read_and_nothing_else(
    tmp_path: Path, level: Level, damage: Callable[[bytes], bytes | None]
) -> None:
    messages = transfer_messages(FILE, SIZE)
    with FileStoreManager(tmp_path, durability=level) as store:
        send(store, messages[:3])
    # Nobody in this process has the journal open.
    with closing(sqlite3.connect(tmp_path / ".workdir" / "journal.db")) as connection, connection:
        [(saved,)] = connection.execute("SELECT state FROM transfer")
        connection.execute("UPDATE transfer SET state = ?", (damage(saved),))
    disk: Any = ReadingDisk()
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        [listed] = store.transfers()
        assert listed.sha256 is None
        disk.bytes_read = 0
        assert send(store, messages[3:]).file_result == "store"
        # Once more, before they are flushed: at level "file" all that others staged, at level
        # "segment" their last segment.
        again = {"file": 4, "segment": 1, "none": 0}[level]
        assert 2 * SIZE <= disk.bytes_read <= (3 + again) * SIZE
        assert published(store) == {"file.bin": FILE}
