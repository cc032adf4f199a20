"""The mutants: what is taken away, where, and where it is hunted."""

from __future__ import annotations

from crash.mutants_backup import BACKUP
from crash.mutants_catalogue import CATALOGUE
from crash.mutants_check import CHECKS
from crash.mutants_closing import CLOSING
from crash.mutants_cluster import CLUSTER
from crash.mutants_events import EVENTS
from crash.mutants_guards import GUARDS
from crash.mutants_journal import JOURNAL
from crash.mutants_keeping import KEEPING
from crash.mutants_limits import LIMITS
from crash.mutants_moving import MOVING
from crash.mutants_promised import PROMISED
from crash.mutants_publish import LIKE_NEW
from crash.mutants_published import PUBLISHED
from crash.mutants_service import SERVICE
from crash.mutants_staged import STAGED

MUTANTS = [
    *STAGED,
    *PUBLISHED,
    *JOURNAL,
    *CLOSING,
    *LIKE_NEW,
    *PROMISED,
    *KEEPING,
    *SERVICE,
    *LIMITS,
    *EVENTS,
    *CATALOGUE,
    *BACKUP,
    *GUARDS,
    *CHECKS,
    *CLUSTER,
    *MOVING,
]
