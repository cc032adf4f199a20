"""The journal: its schema, its mode, and the journals that are refused."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from crew import Worker, apart, bytes_below, cancel, cut, last, segment, visible
from seam import WatchedDisk
from support import LEVELS, at_each_level, journal_of

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import JournalDamagedError, JournalError, JournalVersionError
from txstore.local.journal import schema
from txstore.local.journal.upgrade import OLDER, migrations_folder
from txstore.options import Level

DATA = bytes(range(256)) * 8
NEWER = "9999"

# --- the schema ----------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A journal as a new store gets it."""
    FileStoreManager(tmp_path / "store", durability="none").close()
    return tmp_path / "store" / ".workdir" / "journal.db"


@pytest.fixture
def migrated(tmp_path: Path) -> sa.Engine:
    """A journal as the migrations build it from nothing."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return engine


def described(connection: sqlite3.Connection) -> dict[str, object]:
    """All that SQLite says of the tables: columns in their order with types, defaults and keys,
    and indexes with their columns and conditions."""

    def pragma(text: str) -> list[tuple[Any, ...]]:
        return connection.execute(f"PRAGMA {text}").fetchall()

    found: dict[str, object] = {}
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        found[table] = pragma(f"table_xinfo({table})")
        for _, index, unique, origin, partial in pragma(f"index_list({table})"):
            [(sql,)] = connection.execute(
                "SELECT sql FROM sqlite_master WHERE name = ?", (index,)
            ).fetchall()
            condition = " ".join(sql.split(" WHERE ")[1].split()) if partial else None
            facts = unique, origin, condition, pragma(f"index_xinfo({index})")
            # SQLite numbers the indexes of UNIQUE columns in the order of their making.
            found[f"{table}.{index}"] = facts
    return found


def test_fresh_schema_equals_the_migrated_one(fresh: Path, migrated: sa.Engine) -> None:
    with closing(sqlite3.connect(fresh)) as new, closing(migrated.raw_connection()) as old:
        assert isinstance(old.driver_connection, sqlite3.Connection)
        expected = described(old.driver_connection)
        assert described(new) == expected
    assert {"store", "transfer", "completion", "alembic_version"} <= set(expected)
    assert "transfer.transfer_intent" in expected


def test_fresh_journal_has_the_migrated_ones_version(fresh: Path, migrated: sa.Engine) -> None:
    with closing(sqlite3.connect(fresh)) as new, closing(migrated.raw_connection()) as old:
        query = "SELECT version_num FROM alembic_version"
        assert new.execute(query).fetchall() == old.cursor().execute(query).fetchall()


def test_alembic_finds_nothing_to_migrate(migrated: sa.Engine) -> None:
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []


def test_older_names_the_scripts_in_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())  # newest first
    assert [one.revision for one in reversed(scripts)] == [*OLDER, schema.REVISION]


# --- its mode ------------------------------------------------------------------------------------


class ListeningDisk(WatchedDisk):
    """Knows the connections that were made, and what was done in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[sqlite3.Connection] = []
        self.done: list[str] = []

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        connection = super().connect(path, **options)
        self.connections.append(connection)
        return connection

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "sql":
            self.done.append(facts[0].split()[0])
        elif operation == "flush":
            self.done.append("flush " + os.path.basename(os.readlink(f"/proc/self/fd/{facts[0]}")))


@at_each_level
def test_connection_is_in_the_mode_that_the_journal_needs(tmp_path: Path, level: Level) -> None:
    disk = ListeningDisk()
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        store.store_segment(segment("one", 1, DATA))
        live = disk.connections[-1]

        def answer(pragma: str) -> object:
            return live.execute(f"PRAGMA {pragma}").fetchone()[0]

        assert answer("journal_mode") == "wal"
        assert answer("synchronous") == 1  # NORMAL: checkpoints flush, whatever the level
        assert answer("wal_autocheckpoint") == 0  # only under the journal lock
        assert 0 < int(str(answer("journal_size_limit"))) < 16 * 1024 * 1024
        assert int(str(answer("busy_timeout"))) > 0


def test_commit_is_flushed_before_the_answer_at_level_segment_only(tmp_path: Path) -> None:
    flushed = {}
    for level in LEVELS:
        disk = ListeningDisk()
        with FileStoreManager(tmp_path / level, durability=level, disk=disk) as store:
            store.store_segment(segment("one", 1, DATA))  # the first flush is a checkpoint
            for number in (2, 3):
                disk.done.clear()
                store.store_segment(segment("one", number, DATA))
            commit = len(disk.done) - 1 - disk.done[::-1].index("UPDATE")
            flushed[level] = "flush journal.db-wal" in disk.done[commit:]
    assert flushed == {"segment": True, "file": False, "none": False}


@pytest.mark.parametrize(
    ("pragma", "wrong"),
    [
        ("journal_mode", "delete"),
        ("synchronous", 0),
        ("wal_autocheckpoint", 1000),
        ("journal_size_limit", -1),
    ],
)
def test_journal_that_will_not_go_into_its_mode_is_refused_at_open(
    tmp_path: Path, pragma: str, wrong: object
) -> None:
    class Stubborn(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if sql.partition("=")[0] == f"PRAGMA {pragma}":
                value = f"'{wrong}'" if isinstance(wrong, str) else wrong
                return super().execute(f"SELECT {value}")
            return super().execute(sql, parameters)

    disk = Disk()
    disk.sqlite_connection = Stubborn
    with pytest.raises(JournalError, match=pragma) as caught:
        FileStoreManager(tmp_path, disk=disk)
    assert caught.value.filename == str(tmp_path / ".workdir" / "journal.db")
    FileStoreManager(tmp_path).close()


# --- damaged ones --------------------------------------------------------------------------------


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A store that was closed in order, with a transfer on the way and a stored file."""
    storage = tmp_path / "settled"
    with FileStoreManager(storage, durability="none") as store:
        fill(store)
    return storage


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The same, whose last worker was killed: what it did is in the WAL only."""
    storage = tmp_path / "crashed"
    FileStoreManager(storage, durability="none").close()
    worker = Worker(storage, durability="none")
    fill(worker)
    worker.kill()
    assert {"journal.db-wal", "journal.db-shm"} <= set(os.listdir(storage / ".workdir"))
    return storage


def fill(store: FileStoreManager | Worker) -> None:
    store.store_segment(segment("open", 1, DATA))
    for message in cut(DATA, 3, file_id="done", name="folder/done"):
        store.store_segment(message)


def refuse(storage: Path, error: type[JournalError], *, twice: bool = True) -> JournalError:
    """Open it, here and in another process: refused with an error that names the file, and
    nothing is deleted, made or written."""
    before = bytes_below(storage)
    with pytest.raises(error) as caught:
        FileStoreManager(storage)
    if twice:
        with pytest.raises(error):
            Worker(storage)
    after = bytes_below(storage)
    assert sorted(after) == sorted(before)
    # Shared memory of SQLite's, not data: readers register in it.
    for found in (before, after):
        found.pop(".workdir/journal.db-shm", None)
    assert after == before
    assert caught.value.filename == str(journal_of(storage))
    assert str(journal_of(storage)) in str(caught.value)
    return caught.value


def overwrite(path: Path, data: bytes, offset: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def other_program(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE mail (id)")


def page_size(path: Path) -> int:
    """As SQLite's header says."""
    return int.from_bytes(path.read_bytes()[16:18], "big")


def garbage(size: int) -> bytes:
    return random.Random(2).randbytes(size)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(garbage(path.stat().st_size)),
    "short garbage": lambda path: path.write_bytes(garbage(100)),
    "text": lambda path: path.write_text("This is no journal.\n" * 500),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut inside its header": lambda path: os.truncate(path, 50),
    "cut after its first page": lambda path: os.truncate(path, page_size(path)),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "without its last page": lambda path: os.truncate(path, path.stat().st_size - page_size(path)),
    "other magic": lambda path: overwrite(path, b"Something else 1"),
    "other program's": other_program,
    "without its version": lambda path: change(path, "DELETE FROM alembic_version"),
    "with two versions": lambda path: change(path, "INSERT INTO alembic_version VALUES ('0001')"),
    "without its version table": lambda path: change(path, "DROP TABLE alembic_version"),
    "without its transfers": lambda path: change(path, "DROP TABLE transfer"),
    "without its completions": lambda path: change(path, "DROP TABLE completion"),
    "without its store": lambda path: change(path, "DROP TABLE store"),
    "without its store's row": lambda path: change(path, "DELETE FROM store"),
    "without a column": lambda path: change(path, "ALTER TABLE transfer DROP COLUMN setbacks"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_journal_is_refused_and_left_as_it_is(settled: Path, damage: str) -> None:
    DAMAGES[damage](journal_of(settled))
    assert refuse(settled, JournalDamagedError).errno == errno.EUCLEAN


#: Those that SQLite would not take the WAL for.
_BESIDE_A_WAL = ["empty", "garbage", "short garbage", "text", "cut inside its header"]


@pytest.mark.parametrize("damage", _BESIDE_A_WAL)
def test_journal_damaged_after_a_crash_is_refused_and_left_as_it_is(
    crashed: Path, damage: str
) -> None:
    """The WAL beside it holds acknowledged segments: it must not go either."""
    DAMAGES[damage](journal_of(crashed))
    refuse(crashed, JournalDamagedError)


@pytest.mark.parametrize("filling", ["zeros", "garbage"])
def test_journal_with_any_page_overwritten_is_refused(settled: Path, filling: str) -> None:
    journal = journal_of(settled)
    whole = journal.read_bytes()
    size = page_size(journal)
    for page in range(len(whole) // size):
        overwrite(journal, bytes(size) if filling == "zeros" else garbage(size), page * size)
        try:
            refuse(settled, JournalDamagedError, twice=False)
        except BaseException as error:
            raise AssertionError(f"page {page}: {error}") from error
        journal.write_bytes(whole)


def big_store(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        for number in range(900):
            store.store_segment(segment(f"open{number}", 1, b"x"))


def look_at_all(store: FileStoreManager) -> None:
    for found in store.transfers():
        store.status(found.file_id)


def test_page_overwritten_in_a_large_journal_is_refused_when_it_is_met(tmp_path: Path) -> None:
    """A large journal is not read whole at open."""
    storage = tmp_path / "store"
    apart(big_store, storage)
    journal = journal_of(storage)
    size = journal.stat().st_size
    assert size > 256 * 1024
    marker = b"open350"
    size = page_size(journal)
    page = journal.read_bytes().index(marker) // size
    overwrite(journal, garbage(size), page * size)
    damaged = journal.read_bytes()
    with FileStoreManager(storage) as store, pytest.raises(JournalDamagedError) as caught:
        look_at_all(store)
    assert caught.value.filename == str(journal)
    assert bytes_below(storage)[".workdir/journal.db"] == damaged


@pytest.mark.parametrize("beside", ["-wal", "-shm", "staging file", "all of them"])
def test_journal_missing_beside_what_it_left_is_refused(crashed: Path, beside: str) -> None:
    """A new one would take up the old WAL, or lose staged bytes."""
    working = crashed / ".workdir"
    journal_of(crashed).unlink()
    kept = {"-wal": "journal.db-wal", "-shm": "journal.db-shm"}.get(beside)
    if beside != "all of them":
        for name in ("journal.db-wal", "journal.db-shm"):
            if name != kept:
                (working / name).unlink()
        if beside != "staging file":
            for path in (working / "staging").iterdir():
                path.unlink()
    refuse(crashed, JournalDamagedError)


def test_journal_missing_beside_hidden_staging_files_is_refused(crashed: Path) -> None:
    """Staging lies in the storage dir where the working dir cannot be renamed from."""
    hidden = crashed / ".txstore" / "staging"
    hidden.mkdir()
    for path in (crashed / ".workdir" / "staging").iterdir():
        path.rename(hidden / ("s" + path.name[1:]))
    for path in (crashed / ".workdir").glob("journal.db*"):
        path.unlink()
    refuse(crashed, JournalDamagedError)


def test_damaged_journal_can_be_moved_away_to_start_afresh(settled: Path) -> None:
    """What the error says to do works: finished files stay."""
    os.truncate(journal_of(settled), 0)
    refuse(settled, JournalDamagedError)
    (settled / ".workdir").rename(settled.parent / "moved")
    with FileStoreManager(settled) as store:
        assert store.transfers() == []
        store.store_segment(segment("open", 1, DATA))
    assert visible(settled) == {"folder/done": DATA}


def test_damaged_journal_can_be_restored_from_a_backup(settled: Path) -> None:
    journal = journal_of(settled)
    whole = journal.read_bytes()
    os.truncate(journal, 0)
    refuse(settled, JournalDamagedError)
    journal.write_bytes(whole)
    with FileStoreManager(settled) as store:
        assert store.store_segment(segment("open", 2, DATA)).segments_received == 2


# --- newer ones ----------------------------------------------------------------------------------


def upgrade_to_newer(journal: Path) -> None:
    """What a txstore of the future does to a journal, and is killed."""
    connection = sqlite3.connect(journal, isolation_level=None)
    connection.execute("UPDATE alembic_version SET version_num = ?", (NEWER,))
    os._exit(0)


def be_newer(journal: Path) -> None:
    with pytest.raises(AssertionError, match="ended with 0"):
        apart(upgrade_to_newer, journal)


def test_newer_journal_is_refused_and_left_as_it_is(settled: Path) -> None:
    change(journal_of(settled), f"UPDATE alembic_version SET version_num = '{NEWER}'")
    error = refuse(settled, JournalVersionError)
    assert isinstance(error, JournalVersionError)
    assert (error.found, error.supported) == (NEWER, schema.REVISION)


def test_journal_that_is_newer_in_its_wal_is_refused_and_left_as_it_is(crashed: Path) -> None:
    be_newer(journal_of(crashed))
    refuse(crashed, JournalVersionError)


CALLS = {
    "next segment": segment("open", 2, DATA),
    "last segment": last("open", 2, DATA, "new/open", DATA * 2),
    "mismatch": last("open", 2, DATA, "new/open", DATA),
    "other transfer": segment("other", 1, DATA),
    "one-segment file": last("other", 1, DATA, "new/other", DATA),
    "replaced file": last("other", 1, DATA[:9], "folder/done", DATA[:9]),
    "cancel": cancel("open"),
}


@pytest.fixture(params=LEVELS)
def live(request: pytest.FixtureRequest, settled: Path) -> Iterator[FileStoreManager]:
    """A manager of a journal that a newer txstore upgraded under it."""
    with FileStoreManager(settled, durability=request.param) as store:
        store.store_segment(segment("warm", 1, DATA))  # past what a first call does
        be_newer(journal_of(settled))
        yield store


@pytest.mark.parametrize("call", CALLS)
def test_live_manager_refuses_to_write_after_a_newer_one_upgraded(
    live: FileStoreManager, call: str
) -> None:
    """Neither in the journal, nor under a name, nor to staged bytes: the newer one may have given
    them another meaning."""
    storage = Path(live.storage_dir)
    before = bytes_below(storage)
    with pytest.raises(JournalVersionError) as caught:
        live.store_segment(CALLS[call])
    assert caught.value.found == NEWER
    after = bytes_below(storage)
    for found in (before, after):
        for name in list(found):
            # The journal is compared below: a checkpoint changes its bytes.
            if name.startswith((".workdir/journal.db", ".workdir/locks/")):
                del found[name]
    assert after == before
    assert apart(rows_of, journal_of(storage)) == [("open", 1), ("warm", 1), ("done", 3)]


def test_live_manager_goes_on_with_nothing_after_a_newer_one_upgraded(
    live: FileStoreManager,
) -> None:
    """A transfer that it has in hand: what it may have staged lies past what is recorded."""
    with pytest.raises(JournalVersionError) as caught:
        live.store_segment(segment("warm", 2, DATA))
    assert caught.value.found == NEWER
    rows = apart(rows_of, journal_of(Path(live.storage_dir)))
    assert rows == [("open", 1), ("warm", 1), ("done", 3)]
    staged = [one.read_bytes() for one in Path(live.working_dir, "staging").iterdir()]
    assert [one[: len(DATA)] for one in staged] == [DATA, DATA]


@pytest.mark.parametrize("call", ["cancel", "expire"])
def test_live_manager_ends_no_transfer_after_a_newer_one_upgraded(settled: Path, call: str) -> None:
    with FileStoreManager(settled, durability="none", expire_after=0.0) as store:
        be_newer(journal_of(settled))
        with pytest.raises(JournalVersionError):
            store.cancel("open") if call == "cancel" else store.expire()
        assert apart(rows_of, journal_of(settled)) == [("open", 1), ("done", 3)]
        [name] = os.listdir(settled / ".workdir" / "staging")
        assert (settled / ".workdir" / "staging" / name).read_bytes() == DATA


def rows_of(journal: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as connection:
        found = []
        for table in ("transfer", "completion"):
            found += connection.execute(f"SELECT file_id, segments FROM {table}").fetchall()
    return found
