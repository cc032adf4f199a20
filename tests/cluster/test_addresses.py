"""Where the two servers are: URLs that are refused, and what is never shown of them."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest
from cluster_servers import Cluster

from txstore import FileStoreManager
from txstore.cluster.addresses import ServerURL, read_bucket, without_secrets
from txstore.errors import (
    JournalError,
    MissingExtraError,
    ObjectStoreError,
    OptionError,
    StoreMismatchError,
    TxStoreError,
)
from txstore.limits import Limits

SECRET = "s3cret!"
JOURNAL = "postgresql://user:s3cret%21@/nowhere?host=/nowhere"


@pytest.mark.parametrize(
    ("storage", "journal"),
    [
        ("s3://bucket/prefix", None),
        ("s3://bucket/prefix", "/folder"),
        ("/folder", JOURNAL),
        ("s3://key:s3cret!@bucket/prefix", JOURNAL),
        ("s3://bucket/prefix?endpoint_url=https://key:s3cret!@host", JOURNAL),
        ("s3://bucket/prefix?secret=s3cret!", JOURNAL),
        ("s3:///prefix", JOURNAL),
        ("s3://bucket/a/../b", JOURNAL),
        ("s3://bucket/prefix?part_size=4MiB", JOURNAL),
        ("s3://bucket/prefix?part_size=many", JOURNAL),
        ("s3://bucket/prefix", "postgresql://user:s3cret!@host:port:x/%zz"),
        ("s3://bucket/prefix", "postgresql://user:s3cret!@host/db?no_such_option=s3cret!"),
    ],
)
def test_what_is_no_pair_of_servers_is_refused_and_not_shown(
    storage: str, journal: str | None
) -> None:
    with pytest.raises(OptionError) as caught:
        FileStoreManager(storage, journal)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(vars(caught.value))


def test_a_password_is_shown_nowhere(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, logger="txstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    url = cluster.working_dir.replace("tests-password", "s3cret%21")
    assert url != cluster.working_dir
    shown: list[Any] = [ServerURL(url), ServerURL(JOURNAL)]
    for storage, journal in [(cluster.storage_dir, url), (cluster.storage_dir, JOURNAL)]:
        with pytest.raises((ObjectStoreError, JournalError)) as caught:
            FileStoreManager(storage, journal, lock_timeout=0.1)
        shown += ["".join(traceback.format_exception(caught.value)), vars(caught.value)]
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), TxStoreError)
    monkeypatch.undo()
    with FileStoreManager(cluster.storage_dir, url) as store:
        shown += [store.working_dir, vars(store), vars(store._engine)]
    for one in [*shown, caplog.text]:
        assert "s3cret" not in str(one)
        assert "s3cret" not in repr(one)


def test_options_of_a_url_are_shown_but_passwords() -> None:
    url = "postgresql://u:p@h:1,g/d?sslmode=verify-full&password=p&sslpassword=p&host=/a"
    shown = without_secrets(url)
    assert shown == (
        "postgresql://u@h:1,g/d?sslmode=verify-full&password=%2A%2A%2A&sslpassword=%2A%2A%2A&host=/a"
    )


def test_a_bucket_may_have_a_profile_and_larger_parts() -> None:
    bucket = read_bucket("s3://bucket/a/b/?profile=mine&region_name=x&part_size=64MiB")
    assert (bucket.name, bucket.prefix, bucket.profile) == ("bucket", "a/b/", "mine")
    assert (bucket.client, bucket.part_size) == ({"region_name": "x"}, 64 * 1024**2)


def test_a_limit_that_an_object_store_cannot_tell_is_refused(cluster: Cluster) -> None:
    with pytest.raises(OptionError, match="min_free"):
        FileStoreManager(cluster.storage_dir, cluster.working_dir, limits=Limits(min_free="5%"))


def test_servers_that_do_not_belong_together_are_refused(cluster: Cluster) -> None:
    FileStoreManager(cluster.storage_dir, cluster.working_dir).close()
    another = cluster.addresses.prefix(f"{cluster.place}-other")
    with pytest.raises(StoreMismatchError, match="do not belong together"):
        FileStoreManager(another, cluster.working_dir)


def test_a_name_must_be_one_that_a_key_can_have(cluster: Cluster) -> None:
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        names = store._rules
    assert names.normalise("a//./b", None) == "a/b"
    for bad in ("x" * 256, "/".join(["y" * 200] * 6), "\udcff", "../x", ".txstore/x", "/etc/x"):
        with pytest.raises(ValueError, match="is refused"):
            names.normalise(bad, None)


def test_a_library_that_is_missing_is_named() -> None:
    """And none is imported before it is needed."""
    script = (
        "import sys\n"
        "import txstore.store\n"
        "assert not {'psycopg', 'boto3', 'botocore'} & set(sys.modules)\n"
        "sys.modules['boto3'] = None\n"
        "try:\n"
        f"    txstore.store.FileStoreManager('s3://b/p', {JOURNAL!r})\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert MissingExtraError.__name__ in done.stdout
    assert "pip install 'txstore[cluster]'" in done.stdout
