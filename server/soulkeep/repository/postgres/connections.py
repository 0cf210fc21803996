"""One database as a process reaches it: its pool, what others announce, locks, and errors as ours.

The homes of a process that are kept in one database share all of this. What was sent is never sent
again once it may have been done: reads and the beginning of a transaction are tried again where the
connection is lost, and whether a commit was done is asked for by its number, of the same server or one
that continues its log: one that took over from it may have given the number to another transaction.
"""

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from soulkeep.errors import (
    HALF_A_PAIR,
    InvalidInputError,
    OwnerGoneError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.progress import tell
from soulkeep.repository import StoreUnreachableError, UnrecordedChangeError


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, and in whose log of the database's servers what it commits is."""

    timeline = ""
    """Another after each failover; empty where the server does not tell it."""


CONNECTIONS = 10
"""How many a process uses at once; who finds none free waits for one."""

PATIENCE_S = 10
"""How long a connection, and the lock of a home, are waited for."""

READERS_S = 10
"""How long those are waited for who may still read what is erased."""

ATTEMPTS = 3
"""How often what may be sent again is sent, before it is told that the connection was lost."""

LISTENING_S = 2.0
"""An announcement that was lost with who made it is made up for after so long."""

_SILENCE: dict[str, str | int | None] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A machine that went away without a word counts as gone after 25 s: the system takes two hours."""

CHANNEL = "soulkeep"

UNRECORDED = "SK001"
"""The code of the error by which triggers refuse what is written outside a recording."""

_SECRETS = {"password", "sslpassword", "passfile", "oauth_client_secret"}

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class PaddedVector(bytes):
    """A vector of pgvector as it is sent: big-endian floats, after how many they are."""


class Server:
    """A database with the connections of this process to it, which all its open homes share.

    `opened` gives one for an address; it is closed with the last home.
    """

    _lock = threading.Lock()
    _open: "dict[str, Server]" = {}  # noqa: RUF012 - of the process

    def __init__(self, conninfo: str, place: str) -> None:
        self.place = place
        self._conninfo = conninfo
        self._users = 0
        self._revisions: Counter[str] = Counter()
        self._stored: dict[str, int] = {}
        self._is_listening = False
        self._heard: dict[str, list[Callable[[], object]]] = {}
        self._ending = threading.Event()
        self._held: set[int] = set()
        self._locking: Connection | None = None
        self._locks = threading.Lock()
        self._pool = ConnectionPool(
            conninfo,
            connection_class=Connection,
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=CONNECTIONS,
            timeout=PATIENCE_S,
            reconnect_timeout=PATIENCE_S,
            configure=_configure,
            open=False,
            name="soulkeep",
        )
        self._listener = threading.Thread(target=self._listen, name="soulkeep-news", daemon=True)

    @classmethod
    def opened(cls, url: str, prepare: Callable[[Connection, str], None]) -> "Server":
        """Return what is open for an address, or open it once it was prepared; `close` what it returns.

        Raises:
            StoreError: It is no address, or nothing answers there.
        """
        conninfo, place = _read_address(url)
        with cls._lock:
            server = cls._open.get(conninfo)
            if server is None:
                server = cls(conninfo, place)
                # Before the pool, whose threads would try on and on and only say that there was no time.
                with translated(place), Connection.connect(conninfo, autocommit=True) as first:
                    prepare(first, place)
                server._pool.open()
                server._listener.start()
                cls._open[conninfo] = server
            server._users += 1
            return server

    def close(self) -> None:
        """Let go of it; the last one closes all connections."""
        with Server._lock:
            self._users -= 1
            if self._users > 0:
                return
            Server._open.pop(self._conninfo, None)
        self._ending.set()
        with suppress(StoreError), self.connection() as connection:
            self.announce("", connection)  # wakes who listens
        with self._locks:
            if self._locking is not None:
                self._locking.close()
        self._pool.close()
        self._listener.join(PATIENCE_S)

    def connect(self) -> Connection:
        """Return a connection of its own, for what takes long; the caller closes it."""
        connection = Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        _configure(connection)
        return connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for the block; where all are in use it waits for one.

        Raises:
            StoreBusyError: None came free in time.
            StoreUnreachableError: The database does not answer.
        """
        with translated(self.place), self._lent() as connection:
            yield connection

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        try:
            connection = self._pool.getconn()
        except PoolTimeout as error:
            if self._pool.get_stats().get("pool_size", 0) >= CONNECTIONS:
                raise StoreBusyError(
                    self.place,
                    f"all {CONNECTIONS} connections of this process are in use",
                    "try again in a moment",
                ) from error
            raise StoreUnreachableError(self.place, self._refusal()) from error
        except PoolClosed as error:
            raise StoreError(self.place, "the store was closed", "open it again") from error
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _refusal(self) -> str:
        """Return why there is no connection, which the pool does not tell."""
        try:
            self.connect().close()
        except psycopg.Error as error:
            return _detail(error)
        return "no connection in time"

    def again(self, work: Callable[[Connection], _Result]) -> _Result:
        """Do what may be done twice, over another connection where one is lost or a snapshot is too old.

        Raises:
            StoreError: It failed for another reason, or every time.
        """
        for attempt in range(ATTEMPTS):
            try:
                with self._lent() as connection:
                    return work(connection)
            except PASSING as error:
                if attempt + 1 == ATTEMPTS:
                    with translated(self.place):
                        raise
                _log.debug("tried again: %s", type(error).__name__)
                self.mend()
            except (psycopg.Error, UnicodeEncodeError):
                with translated(self.place):
                    raise
        raise AssertionError

    def mend(self) -> None:
        """Replace the connections that were lost while nobody used them."""
        with suppress(psycopg.Error, PoolClosed, PoolTimeout):
            self._pool.check()

    # What is announced

    def revision(self, owner: str) -> tuple[int, int]:
        """Return what is another soon after each commit to a home, and at once after those from here.

        Raises:
            StoreError: Nobody announces anything now, and the store cannot be asked either.
        """
        if not self._is_listening:
            asked = "SELECT owner, revision FROM owners WHERE owner = %s"
            self._stored |= dict(self.again(lambda one: one.execute(asked, [owner]).fetchall()))
        return self._revisions[owner], self._stored.get(owner, 0)

    def announce(self, owner: str, connection: Connection) -> None:
        """Tell all processes of a commit to a home, after it: commits that announce wait for each other.

        That others hear of it late, when they look for themselves, is no failure of the commit.
        """
        self._revisions[owner] += 1
        notice = sql.SQL("SET LOCAL synchronous_commit = off; NOTIFY {}, {}").format(
            sql.Identifier(CHANNEL), sql.Literal(owner)
        )
        with suppress(psycopg.Error):
            connection.execute(notice)

    @contextmanager
    def hearing(self, owner: str, heard: Callable[[], object]) -> Iterator[None]:
        """Call `heard` after each commit to a home during the block, and where one may be missed."""
        with Server._lock:
            self._heard[owner] = [*self._heard.get(owner, ()), heard]
        try:
            yield
        finally:
            with Server._lock:
                self._heard[owner] = [each for each in self._heard[owner] if each is not heard]
                if not self._heard[owner]:
                    del self._heard[owner]

    def _listen(self) -> None:
        while not self._ending.is_set():
            try:
                with Connection.connect(self._conninfo, autocommit=True) as connection:
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._hear(connection)
            except psycopg.Error as error:
                _log.debug("not listening: %s", type(error).__name__)
            self._is_listening = False
            self._ending.wait(LISTENING_S)

    def _hear(self, connection: Connection) -> None:
        while not self._ending.is_set():
            # What was announced before anybody listened.
            for owner, revision in connection.execute(
                "SELECT owner, revision FROM owners WHERE owner = ANY(%s)", [list(self._revisions)]
            ):
                self._stored[owner] = revision
            if not self._is_listening:
                self._is_listening = True
                for owner in list(self._heard):
                    self._tell(owner)
            for notice in connection.notifies(timeout=LISTENING_S):
                self._revisions[notice.payload] += 1
                self._tell(notice.payload)
                if self._ending.is_set():
                    break

    def _tell(self, owner: str) -> None:
        for heard in self._heard.get(owner, ()):
            with suppress(RuntimeError):  # whoever wants to hear has ended meanwhile
                heard()

    def vacuum(self, places: Sequence[Sequence[str]]) -> bool:
        """Take what was deleted out of tables; False while others may still read it.

        They are waited for, so that a recall of that moment is no hindrance.

        Raises:
            StoreError: The database cannot do it.
        """
        with translated(self.place), self.connect() as connection:
            is_free = self._await_readers(connection)
            for place in places:
                tell(f"Vacuuming {place[-1]}")
                vacuum = sql.SQL("VACUUM (INDEX_CLEANUP ON) {}").format(sql.Identifier(*place))
                connection.execute(vacuum)
            return is_free

    def _await_readers(self, connection: Connection) -> bool:
        """Wait until all ended that may read what was deleted before now; say whether they did."""
        now = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
        until = time.monotonic() + READERS_S
        while connection.execute(_READERS, now).fetchone() != (0,):
            tell("Waiting for others who may still read what was deleted")
            if time.monotonic() > until or self._ending.wait(_POLL_S):
                return False
        return True

    # Locks

    @contextmanager
    def sole_holder(self, name: str) -> Iterator[bool]:
        """Hold a lock of the database for the block, unless anybody does; say whether it is held.

        All are held over one connection, so that long work takes none of those that calls use. Where
        that is lost, others may begin the same work beside this.

        Raises:
            StoreError: The database cannot be asked.
        """
        key = lock_key(name)
        with self._locks:
            is_mine = key not in self._held and self._try_lock(key)
            if is_mine:
                self._held.add(key)
        try:
            yield is_mine
        finally:
            if is_mine:
                with self._locks, suppress(psycopg.Error):
                    self._held.discard(key)
                    if self._locking is not None and not self._locking.closed:
                        self._locking.execute("SELECT pg_advisory_unlock(%s)", [key])

    def _try_lock(self, key: int) -> bool:
        for attempt in range(ATTEMPTS):
            with translated(self.place):
                if self._locking is None or self._locking.closed:
                    self._locking, self._held = self.connect(), set()
                try:
                    asked = self._locking.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
                    return bool(asked and asked[0])
                except psycopg.OperationalError:
                    self._locking.close()
                    if attempt + 1 == ATTEMPTS:
                        raise
        raise AssertionError


# What a vacuum leaves rows for that were deleted before a transaction: the transactions of the database
# that began earlier, open or prepared, and what a standby reads, with a replication slot or without.
_READERS = """
SELECT count(*) FROM (
    SELECT backend_xid, backend_xmin FROM pg_stat_activity
    WHERE coalesce(datname, current_database()) = current_database()
    AND pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
    UNION ALL SELECT transaction, NULL FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL SELECT xmin, NULL FROM pg_replication_slots
) AS readers (xid, xmin) WHERE greatest(age(xid), age(xmin)) > age(%s::xid)
"""

_POLL_S = 0.02

PASSING = (psycopg.OperationalError, psycopg.InterfaceError)
"""Among them that a connection is lost, a deadlock, and a snapshot that is too old."""


def lock_key(name: str) -> int:
    """Return the number by which the database knows a lock."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _read_address(url: str) -> tuple[str, str]:
    """Return how libpq has an address, and how people may see it: without secrets.

    Raises:
        StoreError: It is no address.
    """
    refused = StoreError(
        "SOULKEEP_STORE",
        "it is no address of a PostgreSQL database",
        "write it as postgresql://user:password@host/name, signs of the password as %40 for @",
    )
    if url.partition("?")[0].count("@") > 1:  # a part of the password would pass for the host
        raise refused
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:  # which may have a part of a password in it
        raise refused from None
    defaults: dict[str, str | int | None] = _SILENCE | {
        "connect_timeout": PATIENCE_S,
        "application_name": "soulkeep",
        "target_session_attrs": "read-write",  # of several, after a failover, one that can be written
    }
    conninfo = make_conninfo("", **(defaults | given))
    shown = {name: value for name, value in given.items() if name not in _SECRETS and value}
    user = f"{shown['user']}@" if "user" in shown else ""
    port = f":{shown['port']}" if "port" in shown else ""
    return conninfo, f"postgresql://{user}{shown.get('host', '')}{port}/{shown.get('dbname', '')}"


def _configure(connection: Connection) -> None:
    """Fit a connection: that HNSW looks on, what vectors are sent as, and whose log it writes."""
    connection.execute(
        "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', false),"
        " set_config('jit', 'off', false)"
    )
    info = TypeInfo.fetch(connection, "vector")
    if info is not None:
        info.register(connection)
        kind = type("VectorDumper", (_VectorDumper,), {"oid": info.oid})
        connection.adapters.register_dumper(PaddedVector, kind)
    with suppress(psycopg.Error):  # other servers that speak this protocol may not have it
        told = connection.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").fetchone()
        connection.timeline = str(told[0]) if told else ""


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return bytes(obj)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn errors of the database into ours, so that no caller has to know it."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInputError("text", HALF_A_PAIR) from error
    except psycopg.Error as error:
        raise _told(place, error) from error


_BUSY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.TooManyConnections,
)
_REFUSED = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)
_DAMAGED = (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted)
_NO_ROOM = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory)

_KINDS: tuple[tuple[tuple[type[psycopg.Error], ...], Callable[[str, str], Exception]], ...] = (
    (_BUSY, lambda place, _: StoreBusyError(place)),
    (_NO_ROOM, lambda place, _: StoreFullError(place)),
    (_REFUSED, StoreNotWritableError),
    (_DAMAGED, StoreCorruptError),
    ((psycopg.errors.ForeignKeyViolation,), lambda place, _: OwnerGoneError(place)),
    ((psycopg.OperationalError, psycopg.InterfaceError), StoreUnreachableError),
)


def _detail(error: psycopg.Error) -> str:
    return error.diag.message_primary or next(iter(str(error).splitlines()), type(error).__name__)


def _told(place: str, error: psycopg.Error) -> Exception:
    detail = _detail(error)
    for kinds, told in _KINDS:
        if isinstance(error, kinds):
            return told(place, detail)
    if error.sqlstate == UNRECORDED:
        return UnrecordedChangeError(detail)
    if isinstance(error, psycopg.DataError) and "NUL" in str(error):
        return InvalidInputError("text", "holds a NUL character; remove it")
    return StoreError(place, f"PostgreSQL refused ({detail})", "run `soulkeep doctor`")
