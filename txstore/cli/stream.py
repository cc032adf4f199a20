"""Putting what comes in on standard input into a store.

Nobody knows its size before its end, and what was read of a pipe cannot be read again.  So it
travels in a transfer that no later run goes on with, and that is dropped where the run fails.
Standard input that is a regular file from its start is a file like any other.
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
from collections.abc import Generator
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

from txstore.cli.interrupts import Interruption
from txstore.cli.problems import EXPECTED, CommandError
from txstore.cli.put import Acked, CancelledError, Event, NameTaken, Stored, transfer_prefix
from txstore.constants import FileStoreProp, FileStoreResultProp
from txstore.errors import NameTakenError, SequenceError

if TYPE_CHECKING:
    from txstore import FileStoreManager

STDIN = "-"

_DESCRIPTOR, _PATH = 0, "/dev/stdin"
#: Seconds after which a wait for input looks whether Ctrl-C was pressed.
_LOOK = 0.1


def path_of_stdin() -> str | None:
    """The path of the regular file that standard input is, from its start; ``None``: it is none.

    :raises CommandError: there is no standard input
    """
    try:
        regular = stat.S_ISREG(os.fstat(_DESCRIPTOR).st_mode)
        if not regular or os.lseek(_DESCRIPTOR, 0, os.SEEK_CUR) != 0:
            return None
        return _PATH if os.access(_PATH, os.R_OK) else None
    except OSError as error:
        raise CommandError(f"cannot read standard input: {error.strerror}.") from error


class Stream:
    """Standard input on its way into a store.

    :param replace: whether a file that has the name is replaced; the store is to refuse it, too
    :ivar size: bytes that were read of it
    """

    def __init__(
        self,
        store: FileStoreManager,
        name: str,
        segment_size: int,
        interruption: Interruption,
        *,
        replace: bool = True,
    ) -> None:
        self._store = store
        self._replace = replace
        self._name = name
        self._segment_size = segment_size
        self._interruption = interruption
        self._file_id = transfer_prefix(name, STDIN) + os.urandom(4).hex()
        self._hash = hashlib.sha256()
        self.size = 0

    def sha256(self) -> str:
        """Hex hash of what was read."""
        return self._hash.hexdigest()

    def run(self) -> Generator[Event, None, None]:
        """Do all of it, a segment an event.

        :raises CancelledError: somebody dropped the transfer
        """
        # Before all of it is read; the store tells so only at the end.
        if not self._replace and os.path.lexists(os.path.join(self._store.storage_dir, self._name)):
            yield NameTaken()
            return
        try:
            yield from self._send()
        except SequenceError as error:
            raise CancelledError(self._file_id) from error
        except NameTakenError:
            self._store.cancel(self._file_id)
            yield NameTaken()
        except BaseException:
            # Nobody can go on with it.  Where this fails, too, it goes when it expires.
            with suppress(*EXPECTED):
                self._store.cancel(self._file_id)
            raise

    def _send(self) -> Generator[Event, None, None]:
        number, payload = 1, self._read()
        while True:
            following = self._read() if payload else b""
            # Ctrl-C ends the program that writes the pipe, too.  Its end is not the file's then.
            self._interruption.check()
            self._hash.update(payload)
            self.size += len(payload)
            fields = {
                FileStoreProp.SEGMENT_NUMBER: str(number),
                FileStoreProp.ID: self._file_id,
                FileStoreProp.NAME: self._name,
            }
            if not following:
                fields[FileStoreProp.RESULT] = FileStoreResultProp.STORE
                fields[FileStoreProp.SIZE] = str(self.size)
                fields[FileStoreProp.HASH_SHA256] = self.sha256()
            self._store.store_segment(SimpleNamespace(payload=payload, other_fields=fields))
            if not following:
                yield Stored(len(payload))
                return
            yield Acked(self.size, len(payload))
            number, payload = number + 1, following

    def _read(self) -> bytes:
        """A segment; less than that only at the end."""
        pieces, missing = [], self._segment_size
        while missing:
            # A read would wait on, whatever is pressed.
            while not select.select([_DESCRIPTOR], [], [], _LOOK)[0]:
                self._interruption.check()
            try:
                piece = os.read(_DESCRIPTOR, missing)
            except OSError as error:
                raise CommandError(f"cannot read standard input: {error.strerror}.") from error
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)
