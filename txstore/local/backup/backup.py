"""A backup, from its first step to its last.

First the journal, then the files: what the journal says was stored is there, or something newer.
``docs/design.md`` lists what a publish, a cancel or an expiry in between leaves, and what a crash
after each step does.
"""

from __future__ import annotations

import os

from txstore.backups import Backup, Tell
from txstore.local.backup.copying import Copier
from txstore.local.backup.destination import Destination
from txstore.local.backup.journal import JournalCopy
from txstore.local.backup.staged import StagedCopies
from txstore.local.backup.tree import Tree
from txstore.local.looking.look import Look


def back_up(look: Look, path: str, *, links: bool, tell: Tell) -> Backup:
    """Copy a store; durable when it returns.

    :param path: absolute, where the copy is to be
    :param links: whether stored files get a second name where that can be
    """
    store_id, _ = look.records.identity(look.deadline())
    destination = Destination(look.disk, path, look.found, store_id)
    try:
        backup = Backup(path)
        copier = Copier(look.disk, backup, tell)
        like = look.disk.stat(look.found.journal_path)
        journal = JournalCopy(look.disk, destination, like)
        rows = StagedCopies(look, destination, copier, backup, tell, like).copy(journal)
        journal.change(rows, os.pardir)
        tree = Tree(look.found, destination, copier, backup, tell, links=links)
        tree.copy()
        destination.switch(journal.name)
        # From here on it is the new one; what goes is what only the old one had.
        destination.remove_staged({row["staging"] for row in rows})
        tree.remove_gone()
        destination.finish()
        return backup
    finally:
        destination.close()
