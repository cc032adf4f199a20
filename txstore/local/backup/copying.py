"""Bytes from file to file: as the file system offers it, or one by one."""

from __future__ import annotations

import errno

from txstore.backups import Backup, Tell
from txstore.digest import Hasher
from txstore.local.files.disk import Disk

_CHUNK = 1024 * 1024
#: What a file system answers that cannot share the blocks of two files.
NOT_OFFERED = frozenset(
    {
        *(errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS),
        *(errno.EPERM, errno.EACCES, errno.EMLINK, errno.EBADF, errno.ETXTBSY),
    }
)


class Copier:
    """Copies bytes, and tells how many.  For one thread."""

    def __init__(self, disk: Disk, backup: Backup, tell: Tell) -> None:
        self._disk, self._backup, self._tell = disk, backup, tell

    def copy_file(self, source: int, target: int) -> None:
        """A whole file to a new one."""
        try:
            self._disk.clone(source, target)
        except OSError as error:
            if error.errno not in NOT_OFFERED:
                raise
        else:
            self._backup.cloned += 1
            return
        offset = 0
        while part := self._disk.pread(source, _CHUNK, offset):
            self._write(target, part, offset)
            offset += len(part)
        self._backup.copied += 1

    def copy_bytes(self, source: int, target: int, end: int, hasher: Hasher) -> bool:
        """The bytes from where a hash is up to an offset, which are hashed on the way.

        :return: whether there were that many
        """
        while (offset := hasher.total) < end:
            part = self._disk.pread(source, min(_CHUNK, end - offset), offset)
            if not part:
                return False
            self._write(target, part, offset)
            hasher.update(part)
        return True

    def _write(self, target: int, data: bytes, offset: int) -> None:
        done = 0
        while done < len(data):
            done += self._disk.pwrite(target, memoryview(data)[done:], offset + done)
        self._backup.bytes += len(data)
        self._tell(self._backup)
