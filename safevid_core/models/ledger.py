"""The ledger: one row a model call, which is cache, cost record and resume point at once.

A call is known by its request key, a hash of what the provider saw. The row that answers for a key is
its *served* row: the first usable answer stored, or else the last unusable one. A call that was paid
for and lost the race to be served stays as a cost record. A *claim* is a short-lived row that says
"this key is being asked", so that two processes asking the same thing make one paid call.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from safevid_core.records import Outcome

_METADATA = MetaData()
CALLS = Table(
    "safevid_calls",
    _METADATA,
    Column("call_id", String(32), primary_key=True),
    Column("request_key", String(32), nullable=False),
    Column("served", Boolean, nullable=False),
    Column("model", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("text", Text),
    Column("finish_reason", Text, nullable=False),
    Column("frame_times", Text, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("cost_usd", Float, nullable=False),
    Column("latency_s", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)
Index(
    "safevid_calls_served",
    CALLS.c.request_key,
    unique=True,
    sqlite_where=CALLS.c.served,
    postgresql_where=CALLS.c.served,
)
CLAIMS = Table(
    "safevid_claims",
    _METADATA,
    Column("request_key", String(32), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
)

# SQLite allows 32,766 bound values a statement; short lists keep the compiled statement small.
_KEYS_A_QUERY = 2_000
_BUSY_SECONDS = 60


class LedgerError(RuntimeError):
    """A ledger that cannot be opened or written; the message names it and the mend."""


class Call(NamedTuple):
    """One call that a provider or a local model answered, usable or not.

    Attributes:
        frame_times: Comma-separated seconds of the frames that were shown; empty for text calls.
        cost_usd: What the call cost, 0 where no price is known.
        latency_s: Seconds from the first attempt to the answer.
        attempts: How many times it was sent.
    """

    request_key: str
    model: str
    revision: str
    asset: str
    outcome: Outcome = "failed"
    reason: str = ""
    text: str | None = None
    finish_reason: str = ""
    frame_times: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    attempts: int = 0


_SERVED_COLUMNS = [CALLS.c[name] for name in Call._fields]


class Claimed(NamedTuple):
    """What came of claiming some keys: those to ask, those answered meanwhile, those others are asking."""

    won: list[str]
    answered: dict[str, Call]
    held: list[str]


class Ledger:
    """The stored calls behind one SQLAlchemy URL (SQLite in WAL mode, or PostgreSQL).

    Raises:
        LedgerError: If the database cannot be opened or made.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._engine = _open(self._url.render_as_string(hide_password=False))
        self._dialect = self._engine.dialect.name

    def __repr__(self) -> str:
        return f"Ledger({self._url.render_as_string(hide_password=True)})"

    def answers(self, keys: Iterable[str]) -> dict[str, Call]:
        """The served call of each key that has one."""
        found: dict[str, Call] = {}
        with self._reading() as connection:
            for some in _portions(list(keys)):
                found.update(_served(connection, some))
        return found

    def store(self, calls: Sequence[Call]) -> dict[str, Call]:
        """Write calls in one transaction and end their claims; the served call of each key.

        A usable answer that is already there wins over the new one, which stays as a cost record; an
        unusable one gives way.
        """
        if not calls:
            return {}
        now = time.time()
        rows = [
            {"call_id": uuid.uuid4().hex, "created_at": now, "served": True, **call._asdict()}
            for call in calls
        ]
        keys = [call.request_key for call in calls]
        with self._writing() as connection:
            for some in _portions(keys):
                connection.execute(
                    update(CALLS)
                    .where(CALLS.c.request_key.in_(some), CALLS.c.served, CALLS.c.outcome != "ok")
                    .values(served=False)
                )
            connection.execute(self._insert_new_calls(), rows)
            self._keep_losers(connection, rows)
            self._drop_claims(connection, keys)
            return {key: call for some in _portions(keys) for key, call in _served(connection, some).items()}

    def claim(
        self, keys: Sequence[str], owner: str, seconds: float, *, replace_unusable: bool = False
    ) -> Claimed:
        """Claim the keys that nobody has answered or is asking.

        Args:
            owner: From :func:`new_owner`. A claim whose process is gone counts for nothing.
            seconds: After which the claim counts for nothing, whoever made it.
            replace_unusable: Whether a stored unusable answer is to be asked again.
        """
        with self._writing() as connection:
            self._bury_the_dead(connection, keys)
            expires = time.time() + seconds
            rows = [{"request_key": key, "owner": owner, "expires_at": expires} for key in keys]
            connection.execute(self._insert(CLAIMS).on_conflict_do_nothing(), rows)
            won: set[str] = set()
            answered: dict[str, Call] = {}
            for some in _portions(keys):
                mine = select(CLAIMS.c.request_key).where(
                    CLAIMS.c.request_key.in_(some), CLAIMS.c.owner == owner
                )
                won.update(connection.scalars(mine))
                answered.update(_served(connection, some))
            if replace_unusable:
                answered = {key: call for key, call in answered.items() if call.outcome == "ok"}
            self._drop_claims(connection, [key for key in answered if key in won])
        return Claimed(
            [key for key in keys if key in won and key not in answered],
            answered,
            [key for key in keys if key not in won and key not in answered],
        )

    def release(self, owner: str, keys: Sequence[str] | None = None) -> None:
        """End an owner's claims: those on some keys, or all that it still holds."""
        if keys is not None and not keys:
            return
        held = CLAIMS.c.owner == owner
        with self._writing() as connection:
            for some in [None] if keys is None else _portions(keys):
                which = held if some is None else held & CLAIMS.c.request_key.in_(some)
                connection.execute(delete(CLAIMS).where(which))

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(safevid_write=True)
                with connection.begin():
                    yield connection
        except OperationalError as error:
            raise LedgerError(
                f"{self!r} cannot be written ({str(error.orig).splitlines()[0]}); "
                "check the disk and who else holds it; what was stored before is whole"
            ) from None

    def _insert(self, table: Table) -> sqlite.Insert:
        # Both dialects offer the same `on_conflict_do_nothing`.
        return postgresql.insert(table) if self._dialect == "postgresql" else sqlite.insert(table)  # type: ignore[return-value]

    def _insert_new_calls(self) -> Insert:
        return self._insert(CALLS).on_conflict_do_nothing(
            index_elements=[CALLS.c.request_key], index_where=CALLS.c.served
        )

    def _keep_losers(self, connection: Connection, rows: list[dict]) -> None:
        stored: set[str] = set()
        for some in _portions([row["call_id"] for row in rows]):
            stored.update(connection.scalars(select(CALLS.c.call_id).where(CALLS.c.call_id.in_(some))))
        losers = [{**row, "served": False} for row in rows if row["call_id"] not in stored]
        if losers:
            connection.execute(self._insert(CALLS), losers)

    def _drop_claims(self, connection: Connection, keys: Sequence[str]) -> None:
        for some in _portions(keys):
            connection.execute(delete(CLAIMS).where(CLAIMS.c.request_key.in_(some)))

    def _bury_the_dead(self, connection: Connection, keys: Sequence[str]) -> None:
        now = time.time()
        for some in _portions(keys):
            held = connection.execute(select(CLAIMS).where(CLAIMS.c.request_key.in_(some))).all()
            dead = {row.owner for row in held if row.expires_at < now or not _alive(row.owner)}
            if dead:
                connection.execute(delete(CLAIMS).where(CLAIMS.c.owner.in_(dead)))


def new_owner() -> str:
    """A name for one round of asking: host, process, the process's start, and a random part."""
    return "|".join((socket.gethostname(), str(os.getpid()), _started(os.getpid()), uuid.uuid4().hex))


def _alive(owner: str) -> bool:
    host, process, started, _ = owner.split("|")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(process)) == started


def _started(process: int) -> str:
    # A restarted container hands out the same process ids again; the start time tells them apart.
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


_SERVED_OF = select(*_SERVED_COLUMNS).where(
    CALLS.c.request_key.in_(bindparam("keys", expanding=True)), CALLS.c.served
)


def _served(connection: Connection, keys: Sequence[str]) -> dict[str, Call]:
    return {row[0]: Call._make(row) for row in connection.execute(_SERVED_OF, {"keys": keys})}


def _portions(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]


def _open(url: str) -> Engine:
    parsed = make_url(url)
    shown = parsed.render_as_string(hide_password=True)
    try:
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            _tune_sqlite(engine)
        elif engine.dialect.name != "postgresql":
            raise LedgerError(
                f"ledger {shown}: only sqlite and postgresql are known; change models.ledger_url"
            )
        _make_tables(engine)
    except ImportError as error:
        raise LedgerError(f"ledger {shown} needs a database driver ({error}); install it") from None
    except (OSError, DBAPIError) as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise LedgerError(f"ledger {shown} cannot be opened ({reason}); check models.ledger_url") from None
    return engine


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # BEGIN is ours, below
        connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A transaction that starts by reading and then writes cannot wait for a lock: it fails at once.
        writes = connection.get_execution_options().get("safevid_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_tables(engine: Engine) -> None:
    for last_try in (False, True):
        try:
            with engine.connect().execution_options(safevid_write=True) as connection, connection.begin():
                _METADATA.create_all(connection)
            return
        except DBAPIError:
            # Two processes may make the same PostgreSQL table at the same moment; the second finds it.
            if last_try:
                raise
