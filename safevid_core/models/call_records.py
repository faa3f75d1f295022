"""The records of model calls without their texts, for lineage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import select

from safevid_core.models.ledger import CALLS, Ledger

_KEYS_A_QUERY = 2_000


class CallRecord(NamedTuple):
    """One row of the ledger without its text.

    Attributes:
        served: Whether a question with this key gets this row's answer.
        has_text: Whether the text is still there.
        created_at: Seconds since 1970.
    """

    request_key: str
    asset: str
    model: str
    revision: str
    outcome: str
    cost_usd: float
    created_at: float
    served: bool
    has_text: bool


def call_records(ledger: Ledger, keys: Iterable[str]) -> list[CallRecord]:
    """All calls with one of the request keys, oldest first."""
    wanted = list(dict.fromkeys(keys))
    columns = [CALLS.c[name] for name in CallRecord._fields if name != "has_text"]
    found = []
    with ledger.reading() as connection:
        for start in range(0, len(wanted), _KEYS_A_QUERY):
            some = CALLS.c.request_key.in_(wanted[start : start + _KEYS_A_QUERY])
            rows = connection.execute(select(*columns, CALLS.c.text.is_not(None)).where(some))
            found += [CallRecord(*row) for row in rows]
    return sorted(found, key=lambda each: (each.created_at, each.request_key))
