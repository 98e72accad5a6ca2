# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases by address, one for a process, and transactions that are tried again.

An address is a URI of zodburi: `neo://cluster@host:port,host:port`, `zeo://host:port`,
`file:///path`. That of a cluster with TLS ends in `?certificates=NAME`: see
`slapos_wendelin.neo.certificates`. Storage nodes and masters may be away for a while: `run` repeats
a transaction until it commits or its time is over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import transaction
import zodburi
from transaction.interfaces import TransientError
from ZODB import DB
from ZODB.POSException import ReadOnlyError, StorageError, Unsupported

from slapos_wendelin.neo import certificates
from slapos_wendelin.neo.errors import DatabaseError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from persistent.mapping import PersistentMapping
    from ZODB.Connection import Connection

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Objects that a connection keeps between transactions, in bytes. Blocks are read through it.
CONNECTION_CACHE_BYTES = 32 * 2**20

#: Seconds for which a transaction is tried again when the caller does not say.
TIME_LIMIT = 120.0

#: Seconds between two attempts: the first wait, and the longest. Each wait is cut at random so that
#: many workers do not come back at the same moment.
FIRST_WAIT = 0.05
LONGEST_WAIT = 4.0

#: Attempts of NEO's client to reach the primary master, about one a second, before it gives the
#: failure to the transaction. Without a number it would wait for ever.
MASTER_ATTEMPTS = 3

_databases: dict[tuple[int, str], DB] = {}
_databases_lock = threading.Lock()


def complete_uri(uri: str) -> str:
    """Return the address with what arrays want where it leaves the choice open.

    Blocks are compressed already, so NEO need not try again (DESIGN: 17 or 81 MB/s). The cache of a
    connection is bounded in bytes, as a bound in objects would let blocks of 2 MiB fill the memory.
    The name of a certificate is replaced by the files of it on this machine.

    :raises DatabaseError: when the files are missing.
    """
    scheme, netloc, path, query, fragment = urlsplit(uri)
    options = dict(parse_qsl(query, keep_blank_values=True))
    name = options.pop(certificates.OPTION, None)
    if name is not None:
        files = certificates.files_in(certificates.folder_of(name))
        query = urlencode({**dict(zip(("ca", "cert", "key"), files, strict=True)), **options})
    defaults = {"connection_cache_size_bytes": str(CONNECTION_CACHE_BYTES)}
    if scheme == "neo":
        defaults["compress"] = "false"
    query = "&".join(
        [query] * bool(query) + [f"{k}={v}" for k, v in defaults.items() if k not in options]
    )
    return urlunsplit((scheme, netloc, path, query, fragment))


def open_database(uri: str) -> DB:
    """Return the database at an address; a process opens each address once.

    :raises DatabaseError: for an address that cannot be understood.
    """
    key = (os.getpid(), uri)
    with _databases_lock:
        database = _databases.get(key)
        if database is None:
            _databases[key] = database = _open(uri)
        return database


def close_databases() -> None:
    """Close every database that this process has opened."""
    with _databases_lock:
        for key in [key for key in _databases if key[0] == os.getpid()]:
            _databases.pop(key).close()


@contextlib.contextmanager
def connection(uri: str, at: bytes | None = None) -> Iterator[Connection]:
    """Open a connection with a transaction manager of its own, for one thread.

    :param at: a transaction id: see the database as it was then, and change nothing.

    What anybody has committed before is seen, which costs one question to the primary master: a
    task finds what the tasks before it have written, in whatever process.

    What is not committed at the end is dropped. Commit with
    `connection.transaction_manager.commit()`.
    """
    database = open_database(uri)
    if at is None:
        with _opened(database) as current:
            # Opening shows what this process has heard of; this asks what has happened meanwhile.
            current.sync()
            yield current
        return
    if at > database.lastTransaction():
        with _opened(database) as current:
            current.sync()
        if at > database.lastTransaction():
            raise _FutureError(f"transaction {at.hex()} is not there yet")
    with _opened(database, at) as past:
        yield past


@contextlib.contextmanager
def _opened(database: DB, at: bytes | None = None) -> Iterator[Connection]:
    """Open a connection with a transaction manager of its own; drop at the end what is left."""
    manager = transaction.TransactionManager()
    opened = database.open(transaction_manager=manager, at=at)
    try:
        yield opened
    finally:
        manager.abort()
        opened.close()


def run(
    uri: str,
    function: Callable[[PersistentMapping], T],
    *,
    time_limit: float = TIME_LIMIT,
    at: bytes | None = None,
) -> T:
    """Call a function with the root of the database in a transaction, and commit.

    Conflicts and storage that is away make the function run again from the start, on what is then
    in the database, with growing waits. The answer to a commit can be lost after the commit was
    done, so the function must be one that may run twice: blocks are written whole, for example.

    :param time_limit: seconds after which the last failure counts.
    :param at: read the database as it was at this transaction id; changes are an error.
    :raises StorageUnavailableError: when the time is over.
    """
    deadline = time.monotonic() + time_limit
    wait = FIRST_WAIT
    attempts = 0
    while True:
        attempts += 1
        try:
            with connection(uri, at) as opened:
                result = function(opened.root())
                opened.transaction_manager.commit()
                return result
        except Exception as error:
            if not is_transient(error):
                raise
            if time.monotonic() + wait > deadline:
                raise StorageUnavailableError(
                    f"gave up on {public_uri(uri)} after {attempts} attempts in"
                    f" {time_limit:.0f} s: {type(error).__name__}: {error}",
                    "see that its masters and storages run, then start again",
                ) from error
            logger.info("attempt %d: %s: %s", attempts, type(error).__name__, error)
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret
        wait = min(LONGEST_WAIT, wait * 2)


def last_transaction(uri: str, *, time_limit: float = TIME_LIMIT) -> bytes:
    """Return the id of the last transaction, to read at one moment from many processes."""
    return run(uri, _last_transaction, time_limit=time_limit)


def is_transient(error: BaseException) -> bool:
    """Tell whether a transaction that failed like this may succeed when it is tried again."""
    if isinstance(error, ReadOnlyError | Unsupported):
        return False
    return isinstance(
        error, TransientError | StorageError | ConnectionError | TimeoutError | _FutureError
    ) or type(error).__module__.startswith("neo.lib.")


def public_uri(uri: str) -> str:
    """Return an address without its options, which can name keys or hold a password."""
    return uri.partition("?")[0]


class _FutureError(Exception):
    """This process has not heard yet of the transaction to read at."""


def _open(uri: str) -> DB:
    """Open a database; the storage decides how long it waits for its servers."""
    try:
        with _signals_of_the_main_thread():
            factory, options = zodburi.resolve_uri(complete_uri(uri))
    except DatabaseError:
        raise
    except Exception as error:
        raise DatabaseError(
            f"cannot use the database address {public_uri(uri)!r}: {error}",
            "give neo://CLUSTER@HOST:PORT, zeo://HOST:PORT or file:///PATH",
        ) from error
    storage = factory()
    application = getattr(storage, "app", None)
    if hasattr(application, "max_reconnection_to_master"):
        application.max_reconnection_to_master = MASTER_ATTEMPTS
    if hasattr(storage, "server_sync"):
        # ZEO's client asks its server what has happened meanwhile only when it is made with this
        # option, which no address can say.
        storage.sync = lambda: storage.ping()  # noqa: PLW0108 - it is another for each connection
    try:
        return DB(storage, **options)
    except BaseException:
        storage.close()
        raise


@contextlib.contextmanager
def _signals_of_the_main_thread() -> Iterator[None]:
    """Let NEO be imported in any thread, as in the tasks of a dask worker.

    Its logger asks for signals when it is imported, which Python allows in the main thread only.
    Elsewhere the logger goes without.
    """
    ask = signal.signal

    def ask_if_allowed(number: int, handler: Any) -> Any:
        with contextlib.suppress(ValueError):
            return ask(number, handler)

    signal.signal = ask_if_allowed
    try:
        yield
    finally:
        signal.signal = ask


def _last_transaction(root: PersistentMapping) -> bytes:
    """Return the last transaction that the connection of this root sees."""
    return root._p_jar.db().lastTransaction()  # noqa: SLF001 - public by ZODB's convention
