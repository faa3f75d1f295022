"""The ledger: a table with one row for each model call. It is cache, bill, budget and resume point.

The request key of a call is a hash of the model, the messages and the media. The *served* row of a key is the
row whose answer is returned: the first usable answer, or, if there is none, the last unusable one. A second
usable answer to the same key is not served and stays as a cost record.

A *lease* is a short-lived row of `safevid_claims`. It says that a process is asking the key, so two processes
that ask the same question make one paid call. It also reserves the upper bound of the call's cost, so
processes that share a budget do not exceed it together. When a batch file is recorded, its lines reserve the
cost instead, until they are collected or dropped. A lease ends by its time alone, because its owner may be in
another container or on another machine.
"""

from __future__ import annotations

import math
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import Outcome

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
    Column("run", Text, nullable=False, server_default=""),
    Column("batch_id", String(32), nullable=False, server_default=""),
)
Index(
    "safevid_calls_served",
    CALLS.c.request_key,
    unique=True,
    sqlite_where=CALLS.c.served,
    postgresql_where=CALLS.c.served,
)
Index(
    "safevid_calls_paid",
    CALLS.c.run,
    CALLS.c.asset,
    CALLS.c.cost_usd,
    sqlite_where=CALLS.c.cost_usd > 0,
    postgresql_where=CALLS.c.cost_usd > 0,
)
LEASES = Table(
    "safevid_claims",
    _METADATA,
    Column("request_key", String(32), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("run", Text, nullable=False, server_default=""),
    Column("asset", Text, nullable=False, server_default=""),
    Column("reserved_usd", Float, nullable=False, server_default="0"),
)
# Open batch files: the provider's id of each, and its questions without a collected answer, with the run and
# asset that pay and the cost that each reserves. Without a provider's id the submission was not confirmed.
BATCHES = Table(
    "safevid_batches",
    _METADATA,
    Column("batch_id", String(32), primary_key=True),
    Column("model", Text, nullable=False),
    Column("provider_id", Text),
    Column("created_at", Float, nullable=False),
)
BATCH_LINES = Table(
    "safevid_batch_lines",
    _METADATA,
    Column("request_key", String(32), primary_key=True),
    Column("batch_id", String(32), nullable=False, index=True),
    Column("run", Text, nullable=False, server_default=""),
    Column("asset", Text, nullable=False, server_default=""),
    Column("reserved_usd", Float, nullable=False, server_default="0"),
)

# SQLite allows 32,766 bound values in a statement. Shorter lists keep the compiled statement small.
_KEYS_A_QUERY = 2_000
_BUSY_SECONDS = 60
LONGEST_LEASE_S = 600.0
WITHDRAWN = "withdrawn"  # the reason of a call whose text was removed
_MAPPED_BYTES = 1 << 30
_ROUNDING_USD = 1e-9
_NOBODY = {"run": "", "asset": "", "reserved_usd": 0.0}
_WRITERS_LOCK = 0x5AFE71D  # key of a PostgreSQL advisory lock


class LedgerError(SafeVidError, RuntimeError):
    """The ledger cannot be opened, read or written. The message names it and says what to do."""


class Call(NamedTuple):
    """One call that a provider or a local model answered, usable or not.

    Attributes:
        request_key: Key of the question.
        model: The model that was asked.
        revision: Revision of that model.
        asset: The asset that pays.
        outcome: `ok`, `failed` or `undecidable`.
        reason: Why the outcome is not `ok`. Empty if it is.
        text: The complete text of the model. None if there is none.
        finish_reason: The provider's finish reason. Empty if there is none.
        frame_times: Comma-separated times in seconds of the frames that were shown. Empty for text calls.
        tokens_in: Tokens of the question.
        tokens_out: Tokens of the answer.
        cost_usd: Cost of the call in USD. 0 if no price is known.
        latency_s: Seconds from the first attempt to the answer.
        attempts: Number of times that the call was sent.
        batch_id: The batch that the call was a line of. Empty for a single call.
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
    batch_id: str = ""


class Acquired(NamedTuple):
    """The result of :meth:`Ledger.acquire`.

    Attributes:
        leased: Keys with a lease, to ask now.
        answered: Keys that have an answer in the meantime, with their served calls.
        held: Keys to lease later: other processes are asking them, or have reserved the money.
        unaffordable: Keys that might exceed the budget, whatever the open calls cost.
    """

    leased: list[str]
    answered: dict[str, Call]
    held: list[str]
    unaffordable: list[str]


class Budget(NamedTuple):
    """The limits of a run's spending, in USD.

    Attributes:
        run: Id of the run.
        asset: Name of an asset.
        run_usd: Limit for the whole run. None means no limit.
        asset_usd: Limit for this asset. None means no limit.
    """

    run: str
    asset: str
    run_usd: float | None = None
    asset_usd: float | None = None

    @property
    def limited(self) -> bool:
        return self.run_usd is not None or self.asset_usd is not None


NO_BUDGET = Budget("", "")


class Ledger:
    """The ledger in a database: SQLite in WAL mode, or PostgreSQL.

    Every method raises a `LedgerError` if the database cannot be read or written.

    Args:
        url: SQLAlchemy URL. Example: `sqlite:////data/ledger.db`.

    Raises:
        LedgerError: If the database cannot be opened or created.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._engine = _open(self._url.render_as_string(hide_password=False))
        self._dialect = self._engine.dialect.name

    def __repr__(self) -> str:
        return f"Ledger({self._url.render_as_string(hide_password=True)})"

    def answers(self, keys: Iterable[str]) -> dict[str, Call]:
        """Return the served call of each key that has one."""
        found: dict[str, Call] = {}
        wanted = list(keys)
        with self.reading() as connection, _memory_mapped(connection, len(wanted)):
            for some in _portions(wanted):
                found.update(_served(connection, some))
        return found

    def store(self, calls: Sequence[Call], run: str = "") -> dict[str, Call]:
        """Write calls in one transaction and end their leases.

        A usable answer that is already stored stays served, and the new call is a cost record only. An
        unusable answer is replaced. Each line of a batch is stored once, whichever process collects it, and
        is booked to the run and asset that submitted it.

        Args:
            calls: The calls.
            run: The run that pays for them. Defaults to none.

        Returns:
            The served call of each key.
        """
        if not calls:
            return {}
        now = time.time()
        new = {"created_at": now, "served": True, "run": run}
        rows = [{"call_id": _call_id(call), **new, **call._asdict()} for call in calls]
        keys = [call.request_key for call in calls]
        with self._writing() as connection:
            rows = self._to_be_booked(connection, rows)
            if rows:
                connection.execute(self._insert_new_calls(), rows)
            late = self._not_there(connection, rows)
            if late:
                self._take_over(connection, late)
            self._drop_leases(connection, keys)
            _forget_lines(connection, keys)
            return {key: call for some in _portions(keys) for key, call in _served(connection, some).items()}

    def retire(self, texts: Mapping[str, str]) -> None:
        """Stop serving the answers of some keys. Their rows stay in the ledger.

        Args:
            texts: Request key -> text. A key is skipped if its served row has another text.
        """
        if not texts:
            return
        with self._writing() as connection:
            statement = (
                update(CALLS)
                .where(
                    CALLS.c.request_key == bindparam("key"),
                    CALLS.c.served,
                    CALLS.c.text == bindparam("stored_text"),
                )
                .values(served=False)
            )
            connection.execute(statement, [{"key": key, "stored_text": text} for key, text in texts.items()])

    def blank(self, keys: Iterable[str]) -> None:
        """Remove the texts of all calls of some keys, and stop serving them. Costs and tokens stay.

        On SQLite the bytes of the texts are overwritten in the file, and its write-ahead log is emptied.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return
        with self._writing() as connection:
            if self._dialect == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            for some in _portions(wanted):
                connection.execute(
                    update(CALLS)
                    .where(CALLS.c.request_key.in_(some))
                    .values(text=None, served=False, reason=WITHDRAWN, frame_times="")
                )
            self._drop_leases(connection, wanted)
            _forget_lines(connection, wanted)
        if self._dialect == "sqlite":
            with self.reading() as connection:
                connection.rollback()  # a checkpoint needs a connection without a transaction
                connection.connection.dbapi_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]

    def acquire(
        self,
        keys: Sequence[str],
        owner: str,
        seconds: float,
        *,
        replace_before: float | None = None,
        budget: Budget = NO_BUDGET,
        bounds: Mapping[str, float] | None = None,
    ) -> Acquired:
        """Take a lease on the keys that have no answer and no lease, as far as the budget allows.

        A key in an open batch needs no money, because the batch has reserved or spent it.

        Args:
            keys: Request keys.
            owner: Name of the owner, from :func:`new_owner`.
            seconds: Length of the lease, at most `LONGEST_LEASE_S`. :meth:`renew` extends it.
            replace_before: Time in seconds since 1970. Unusable answers that were stored earlier are asked
                again. None serves them.
            budget: Limits of the run. Defaults to none.
            bounds: Upper bound of the cost of each key, in USD. Required if the budget is limited.
        """
        with self._writing() as connection:
            self._delete_expired(connection, LEASES.c.request_key, keys)
            expires = _now(connection) + seconds
            row = {"owner": owner, "expires_at": expires, "run": budget.run, "asset": budget.asset}
            rows = [{"request_key": key, "reserved_usd": 0.0, **row} for key in keys]
            connection.execute(self._insert(LEASES).on_conflict_do_nothing(), rows)
            mine: set[str] = set()
            answered: dict[str, Call] = {}
            for some in _portions(keys):
                own = select(LEASES.c.request_key).where(
                    LEASES.c.request_key.in_(some), LEASES.c.owner == owner
                )
                mine.update(connection.scalars(own))
                answered.update(_served(connection, some))
            if replace_before is not None:
                late = set(self._stored_since(connection, list(answered), replace_before))
                answered = {
                    key: call for key, call in answered.items() if call.outcome == "ok" or key in late
                }
            won = [key for key in keys if key in mine and key not in answered]
            afforded, unaffordable = self._afford(connection, won, budget, bounds or {})
            self._drop_leases(connection, [key for key in mine if key not in afforded])
        return Acquired(
            [key for key in won if key in afforded],
            answered,
            [key for key in keys if key not in afforded and key not in answered and key not in unaffordable],
            [key for key in won if key in unaffordable],
        )

    def renew(self, owner: str, seconds: float) -> None:
        """Extend all leases of an owner to `seconds` from now."""
        with self._writing() as connection:
            held = update(LEASES).where(LEASES.c.owner == owner)
            connection.execute(held.values(expires_at=_now(connection) + seconds))

    def spent(self, run: str, asset: str | None = None) -> float:
        """Return the USD that a run has paid, for one asset, or in total if `asset` is None."""
        with self.reading() as connection:
            return _sum(connection, CALLS.c.cost_usd, run, asset)

    def in_batches(self, run: str, asset: str | None = None) -> float:
        """Return the USD that a run has reserved for open batches, for one asset or in total."""
        with self.reading() as connection:
            return _sum(connection, BATCH_LINES.c.reserved_usd, run, asset)

    def release(self, owner: str, keys: Sequence[str] | None = None) -> None:
        """End an owner's leases on some keys, or on all keys if `keys` is None."""
        if keys is not None and not keys:
            return
        held = LEASES.c.owner == owner
        with self._writing() as connection:
            for some in [None] if keys is None else _portions(keys):
                which = held if some is None else held & LEASES.c.request_key.in_(some)
                connection.execute(delete(LEASES).where(which))

    def open_batch(self, batch_id: str, model: str, keys: Sequence[str]) -> None:
        """Record a batch before it is submitted, so that a killed process leaves a record.

        Args:
            batch_id: Name of the batch in the ledger.
            model: The model that it asks.
            keys: Request keys of its questions.
        """
        with self._writing() as connection:
            row = {"batch_id": batch_id, "model": model, "created_at": time.time()}
            connection.execute(self._insert(BATCHES), [row])
            payers = _payers(connection, keys)
            _forget_lines(connection, keys)
            lines = [{"request_key": key, "batch_id": batch_id, **payers.get(key, _NOBODY)} for key in keys]
            connection.execute(self._insert(BATCH_LINES), lines)
            for some in _portions(keys):  # the lines reserve the money from now on
                connection.execute(
                    update(LEASES).where(LEASES.c.request_key.in_(some)).values(reserved_usd=0.0)
                )

    def confirm_batch(self, batch_id: str, provider_id: str) -> None:
        """Record the provider's id of a batch that it has accepted."""
        with self._writing() as connection:
            connection.execute(
                update(BATCHES).where(BATCHES.c.batch_id == batch_id).values(provider_id=provider_id)
            )

    def withdraw_batch(self, batch_id: str) -> None:
        """Delete the record of a batch that will not be submitted."""
        with self._writing() as connection:
            connection.execute(delete(BATCH_LINES).where(BATCH_LINES.c.batch_id == batch_id))
            connection.execute(delete(BATCHES).where(BATCHES.c.batch_id == batch_id))

    def batches_of(self, keys: Sequence[str]) -> dict[str, tuple[str | None, list[str]]]:
        """Return the open batches that hold some of the keys.

        Returns:
            Batch id -> the provider's id, or None if the submission was not confirmed, and those of the keys
            that the batch holds.
        """
        found: dict[str, tuple[str | None, list[str]]] = {}
        with self.reading() as connection:
            for some in _portions(keys):
                lines = select(BATCH_LINES.c.request_key, BATCHES.c.batch_id, BATCHES.c.provider_id).where(
                    BATCH_LINES.c.batch_id == BATCHES.c.batch_id, BATCH_LINES.c.request_key.in_(some)
                )
                for key, batch_id, provider_id in connection.execute(lines):
                    found.setdefault(batch_id, (provider_id, []))[1].append(key)
        return found

    def forget_lines(self, keys: Sequence[str], batch_id: str) -> None:
        """Remove questions from a batch that did not answer them."""
        with self._writing() as connection:
            _forget_lines(connection, keys, BATCH_LINES.c.batch_id == batch_id)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection for queries on the tables of this module."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(
                f"{self!r} cannot be read ({_line(error)}); check the disk and who else holds it"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(safevid_write=True)
                with connection.begin():
                    _lock_for_writing(connection)
                    try:
                        yield connection
                    except (KeyboardInterrupt, SystemExit):
                        connection.invalidate()  # an interrupted statement leaves an unknown state
                        raise
        # Drivers raise errors of their own for values that the database cannot hold.
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            raise LedgerError(
                f"{self!r} cannot be written ({_line(error)}); "
                "check the disk and who else holds it; earlier rows are complete"
            ) from None

    def _insert(self, table: Table) -> sqlite.Insert:
        # Both dialects have the same `on_conflict_do_nothing`.
        return postgresql.insert(table) if self._dialect == "postgresql" else sqlite.insert(table)  # type: ignore[return-value]

    def _insert_new_calls(self) -> Insert:
        return self._insert(CALLS).on_conflict_do_nothing(
            index_elements=[CALLS.c.request_key], index_where=CALLS.c.served
        )

    def _take_over(self, connection: Connection, late: list[dict]) -> None:
        """Serve these rows instead of unusable answers. If a usable one is stored, they are cost records."""
        for some in _portions([row["request_key"] for row in late]):
            connection.execute(
                update(CALLS)
                .where(CALLS.c.request_key.in_(some), CALLS.c.served, CALLS.c.outcome != "ok")
                .values(served=False)
            )
        connection.execute(self._insert_new_calls(), late)
        lost = [{**row, "served": False} for row in self._not_there(connection, late)]
        if lost:
            connection.execute(self._insert(CALLS), lost)

    def _to_be_booked(self, connection: Connection, rows: list[dict]) -> list[dict]:
        """Return the rows without batch lines that are already stored, with the run and asset that pay."""
        collected = [row["request_key"] for row in rows if row["batch_id"]]
        if not collected:
            return rows
        payers: dict[tuple[str, str], dict] = {}
        for some in _portions(collected):
            lines = BATCH_LINES.c.request_key.in_(some) & (BATCH_LINES.c.run != "")
            for line in connection.execute(select(BATCH_LINES).where(lines)):
                payers[line.request_key, line.batch_id] = {"run": line.run, "asset": line.asset}
        return [
            {**row, **payers.get((row["request_key"], row["batch_id"]), {})}
            for row in self._not_there(connection, rows)
        ]

    @staticmethod
    def _stored_since(connection: Connection, keys: Sequence[str], moment: float) -> Iterator[str]:
        for some in _portions(keys):
            served = CALLS.c.request_key.in_(some) & CALLS.c.served & (CALLS.c.created_at >= moment)
            yield from connection.scalars(select(CALLS.c.request_key).where(served))

    @staticmethod
    def _not_there(connection: Connection, rows: list[dict]) -> list[dict]:
        stored: set[str] = set()
        for some in _portions([row["call_id"] for row in rows]):
            stored.update(connection.scalars(select(CALLS.c.call_id).where(CALLS.c.call_id.in_(some))))
        return [row for row in rows if row["call_id"] not in stored]

    def _drop_leases(self, connection: Connection, keys: Sequence[str]) -> None:
        for some in _portions(keys):
            connection.execute(delete(LEASES).where(LEASES.c.request_key.in_(some)))

    def _delete_expired(self, connection: Connection, column: ColumnElement, values: Sequence[str]) -> None:
        """Delete expired leases whose `column` has one of the values."""
        now = _now(connection)
        # An expiry later than any lease allows is from before a restart or a clock change.
        over = (LEASES.c.expires_at < now) | (LEASES.c.expires_at > now + LONGEST_LEASE_S)
        for some in _portions(values):
            connection.execute(delete(LEASES).where(column.in_(some), over))

    def _afford(
        self, connection: Connection, keys: Sequence[str], budget: Budget, bounds: Mapping[str, float]
    ) -> tuple[set[str], set[str]]:
        """Reserve the cost of as many keys as the budget allows, in order.

        Returns:
            The keys that are reserved or need no money, and the keys that the budget can never pay for.
        """
        if not budget.limited or not keys:
            return set(keys), set()
        self._delete_expired(connection, LEASES.c.run, [budget.run])
        submitted = _submitted(connection, keys)  # already paid or reserved
        new = [key for key in keys if key not in submitted]
        # Money that a batch of a killed process has reserved is not freed by any open call.
        asking = select(LEASES.c.request_key).where(LEASES.c.expires_at >= _now(connection))
        left = unspent = math.inf
        for limit, asset in ((budget.run_usd, None), (budget.asset_usd, budget.asset)):
            if limit is not None:
                in_batches = partial(_sum, connection, BATCH_LINES.c.reserved_usd, budget.run, asset)
                free = limit - _sum(connection, CALLS.c.cost_usd, budget.run, asset)
                unspent = min(unspent, free - in_batches(BATCH_LINES.c.request_key.not_in(asking)))
                reserved = _sum(connection, LEASES.c.reserved_usd, budget.run, asset) + in_batches()
                left = min(left, free - reserved)
        afforded: dict[str, float] = {}
        for key in new:
            if (left := left - bounds[key]) < -_ROUNDING_USD:
                break
            afforded[key] = bounds[key]
        statement = (
            update(LEASES)
            .where(LEASES.c.request_key == bindparam("key"))
            .values(reserved_usd=bindparam("bound"))
        )
        if afforded:
            connection.execute(statement, [{"key": key, "bound": usd} for key, usd in afforded.items()])
        unaffordable = {key for key in new if bounds[key] > unspent + _ROUNDING_USD}
        return submitted.union(afforded), unaffordable


def _lock_for_writing(connection: Connection) -> None:
    """Allow one writer at a time on PostgreSQL, as on SQLite. This avoids deadlocks and budget races."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))


def _sum(
    connection: Connection, column: Column, run: str, asset: str | None, *which: ColumnElement[bool]
) -> float:
    total = select(func.coalesce(func.sum(column), 0.0)).where(column.table.c.run == run, column > 0, *which)
    if asset is not None:
        total = total.where(column.table.c.asset == asset)
    return float(connection.scalar(total) or 0.0)


def _call_id(call: Call) -> str:
    """Return a new id. A line of a batch has the same id in each process that collects it."""
    if not call.batch_id:
        return uuid.uuid4().hex
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{call.batch_id}/{call.request_key}").hex


def _submitted(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Return the keys that are in a submitted batch, or in a batch that has reserved money for them."""
    found: set[str] = set()
    if connection.scalar(select(BATCHES.c.batch_id).limit(1)) is None:
        return found  # the usual case: there is no open batch
    for some in _portions(keys):
        lines = select(BATCH_LINES.c.request_key).where(
            BATCH_LINES.c.batch_id == BATCHES.c.batch_id,
            BATCH_LINES.c.request_key.in_(some),
            BATCHES.c.provider_id.is_not(None) | (BATCH_LINES.c.reserved_usd > 0),
        )
        found.update(connection.scalars(lines))
    return found


def _payers(connection: Connection, keys: Sequence[str]) -> dict[str, dict]:
    """Return run, asset and reserved USD of each key, from a line of a batch or else from its lease."""
    found: dict[str, dict] = {}
    for some in _portions(keys):
        for table, which in ((LEASES, true()), (BATCH_LINES, BATCH_LINES.c.reserved_usd > 0)):
            columns = (table.c.request_key, *(table.c[name] for name in _NOBODY))
            for key, *values in connection.execute(select(*columns).where(columns[0].in_(some), which)):
                found[key] = dict(zip(_NOBODY, values, strict=True))
    return found


def _forget_lines(connection: Connection, keys: Sequence[str], *which: ColumnElement[bool]) -> None:
    """Remove the keys from their batches, and delete batches that become empty."""
    if connection.scalar(select(BATCHES.c.batch_id).limit(1)) is None:
        return  # the usual case: there is no open batch
    touched: set[str] = set()
    for some in _portions(keys):
        lines = and_(BATCH_LINES.c.request_key.in_(some), *which)
        touched.update(connection.scalars(select(BATCH_LINES.c.batch_id).where(lines)))
        if touched:
            connection.execute(delete(BATCH_LINES).where(lines))
    if touched:
        full = select(BATCH_LINES.c.batch_id)
        connection.execute(
            delete(BATCHES).where(BATCHES.c.batch_id.in_(touched), BATCHES.c.batch_id.not_in(full))
        )


def _line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def new_owner() -> str:
    """Return a new name for the owner of a lease."""
    return uuid.uuid4().hex


def still_clock() -> float:
    """Return seconds of a clock that cannot be set. On Linux it also runs while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _now(connection: Connection) -> float:
    """Return the time in seconds that all users of the database share: the server's or the machine's."""
    if connection.dialect.name != "postgresql":
        return still_clock()
    return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


def _served(connection: Connection, keys: Sequence[str]) -> dict[str, Call]:
    # Plain SQL, because SQLAlchemy would take three times as long as the database for so many rows.
    marks = ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * len(keys))
    columns = ", ".join(Call._fields)
    statement = f"SELECT {columns} FROM {CALLS.name} WHERE request_key IN ({marks}) AND served"
    rows = connection.exec_driver_sql(statement, tuple(keys)).all() if keys else []
    return {row[0]: Call._make(row) for row in rows}


@contextmanager
def _memory_mapped(connection: Connection, keys: int) -> Iterator[None]:
    """Map SQLite's file into memory while many keys are read. Keys are hashes, spread over the whole file.

    The mapping ends with the block, because mapped pages count as memory of the process.
    """
    if connection.dialect.name != "sqlite" or keys <= _KEYS_A_QUERY:
        yield
        return
    connection.exec_driver_sql(f"PRAGMA mmap_size={_MAPPED_BYTES}")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA mmap_size=0")


def _portions(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]


def _open(url: str) -> Engine:
    parsed = make_url(url)
    shown = parsed.render_as_string(hide_password=True)
    try:
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        if parsed.get_backend_name() == "postgresql":
            engine = create_engine(url, pool_pre_ping=True)
        else:
            # With unlimited connections threads wait for the file only. A database in memory has no pool.
            in_memory = parsed.database in (None, "", ":memory:")
            engine = create_engine(url, **({} if in_memory else {"max_overflow": -1}))
        if engine.dialect.name == "sqlite":
            _tune_sqlite(engine)
        elif engine.dialect.name == "postgresql":
            _tune_postgresql(engine)
        else:
            raise LedgerError(
                f"ledger {shown}: only sqlite and postgresql are known; change models.ledger_url"
            )
        _make_tables(engine)
    except ImportError as error:
        raise LedgerError(f"ledger {shown} needs a database driver ({error}); install it") from None
    except (OSError, DBAPIError) as error:
        reason = _line(error)
        raise LedgerError(f"ledger {shown} cannot be opened ({reason}); check models.ledger_url") from None
    return engine


def _tune_sqlite(engine: Engine) -> None:
    busy_s = float(str(engine.url.query.get("timeout", _BUSY_SECONDS)))

    @event.listens_for(engine, "connect")
    def _on_connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # _on_begin sends BEGIN
        connection.execute(f"PRAGMA busy_timeout={int(busy_s * 1000)}")
        _write_ahead(connection, busy_s)
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A transaction that reads first and writes later cannot wait for a lock: SQLite raises at once.
        writes = connection.get_execution_options().get("safevid_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _tune_postgresql(engine: Engine) -> None:
    """Set timeouts, so that a client that stops within a transaction blocks others for at most a minute."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{2 * _BUSY_SECONDS}s'")
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{_BUSY_SECONDS}s'")
        connection.commit()


def _write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """Set SQLite's WAL mode, and retry while another process opens the same new file."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _make_tables(engine: Engine) -> None:
    with engine.connect().execution_options(safevid_write=True) as connection, connection.begin():
        _lock_for_writing(connection)
        _METADATA.create_all(connection)
        _add_missing_columns(connection)


def _add_missing_columns(connection: Connection) -> None:
    """Add new columns and indexes to a ledger of an earlier version, so that its answers stay in use."""
    for table in _METADATA.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
