"""Hypothesis strategies for the values in messages: contents, segments, ids, names."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

# --- contents, and how they are cut ------------------------------------------------------------

#: Around a SHA-256 block, a disk's block and a page.
_EDGES = (0, 1, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097)


def contents(*, max_size: int = 8192) -> st.SearchStrategy[bytes]:
    """The bytes of a file: short ones in any pattern; longer ones random, all zeros or repeated,
    with sizes preferred at the edges of blocks."""
    sizes = st.one_of(
        st.sampled_from([edge for edge in _EDGES if edge <= max_size]), st.integers(0, max_size)
    )
    return st.one_of(
        st.binary(max_size=min(64, max_size)),
        sizes.map(bytes),
        st.builds(_repeated, st.binary(min_size=1, max_size=8), sizes),
        st.builds(_random, st.integers(0, 255), sizes),
    )


def _repeated(pattern: bytes, size: int) -> bytes:
    return (pattern * (size // len(pattern) + 1))[:size]


def _random(seed: int, size: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


@st.composite
def segmentations(
    draw: st.DrawFn, content: bytes, *, min_segments: int = 1, max_segments: int = 6
) -> tuple[bytes, ...]:
    """``content`` cut into segments, some of which may be empty."""
    many = draw(st.integers(min_segments, max_segments))
    places = st.integers(0, len(content))
    cuts = sorted(draw(st.lists(places, min_size=many - 1, max_size=many - 1)))
    return tuple(
        content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)
    )


# --- ids and names -----------------------------------------------------------------------------

_LONGEST_ID = 255  # characters
_LONGEST_PART = 255  # bytes of one name in a folder, on every common file system
_ID_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="./\\\0")
_PART_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
_TAKEN = frozenset({".", "..", ".txstore", ".workdir"})


def file_ids() -> st.SearchStrategy[str]:
    """Ids that a sender may choose: 1 to 255 characters, case matters."""
    return st.one_of(
        st.uuids(version=4).map(str),
        st.sampled_from(["a", "A", " ", "-", "0", "journal", "\u00e9" * _LONGEST_ID]),
        st.text(_ID_TEXT, min_size=1, max_size=_LONGEST_ID),
    )


@st.composite
def names(draw: st.DrawFn, *, max_depth: int = 3) -> str:
    """Names that a store with the default working dir takes while it is empty, some in a spelling
    that has to be normalised."""
    parts = draw(st.lists(_name_parts(), min_size=1, max_size=max_depth))
    spelling = draw(st.sampled_from(["plain", "plain", "dot", "doubled", "there and back"]))
    if spelling == "dot":
        parts.insert(draw(st.integers(0, len(parts) - 1)), ".")
    elif spelling == "doubled" and len(parts) > 1:
        parts.insert(1, "")
    elif spelling == "there and back":
        parts[:0] = ["elsewhere", ".."]
    return "/".join(parts)


def _name_parts() -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(["a", "A", "a.bin", "file", " ", "~", "-rf", "x" * _LONGEST_PART]),
        st.text(_PART_TEXT, min_size=1, max_size=20),
    ).filter(lambda part: part not in _TAKEN and len(part.encode()) <= _LONGEST_PART)
