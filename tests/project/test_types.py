"""What type checkers are told of the public API."""

from __future__ import annotations

from typing import get_args, get_type_hints

from txstore import FileStoreManager
from txstore.options import Durability


def test_levels_are_a_literal() -> None:
    hints = get_type_hints(FileStoreManager.__init__)
    assert set(get_args(hints["durability"])) == {level.value for level in Durability}


def test_context_manager_is_of_the_subclass() -> None:
    assert "Self" in str(get_type_hints(FileStoreManager.__enter__)["return"])


class Special(FileStoreManager):
    """A subclass, which mypy checks here."""

    def of_its_own(self) -> None:
        """Not there in the class above."""


def enter(store: Special) -> None:
    with store as entered:
        entered.of_its_own()
