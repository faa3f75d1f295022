"""What the ledger keeps, serves and lets claim."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from safevid_core.models.ledger import Call, Ledger, LedgerError, new_owner


def call(key: str, answer: str | None = "yes", outcome: str = "ok", **changes: object) -> Call:
    fields = {
        "request_key": key, "model": "m", "revision": "1", "asset": "x", "outcome": outcome, "reason": "",
        "text": answer, "finish_reason": "stop", "frame_times": "", "tokens_in": 1, "tokens_out": 2,
        "cost_usd": 0.5, "latency_s": 0.1, "attempts": 1,
    }  # fmt: skip
    return Call(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind; `TEST_POSTGRES_URL` names an empty PostgreSQL one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/ledger.sqlite"
    pytest.importorskip("psycopg2")
    found = os.environ.get("TEST_POSTGRES_URL")
    if not found:
        pytest.skip("TEST_POSTGRES_URL is not set")
    with create_engine(found).begin() as connection:
        connection.execute(text("drop table if exists safevid_calls, safevid_claims"))
    return found


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


def rows(url: str) -> int:
    with create_engine(url).connect() as connection:
        return int(connection.scalar(text("select count(*) from safevid_calls")) or 0)


def test_calls_come_back_as_they_were_stored(ledger: Ledger) -> None:
    stored = call("k", "ünïcode \n text", frame_times="0.5,1.5")
    ledger.store([stored, call("other")])
    assert ledger.answers(["k", "missing"]) == {"k": stored}


def test_the_stored_answer_wins_and_the_loser_stays_on_the_bill(ledger: Ledger, url: str) -> None:
    ledger.store([call("k", "first")])
    assert ledger.store([call("k", "second")])["k"].text == "first"
    assert ledger.answers(["k"])["k"].text == "first"
    assert rows(url) == 2


def test_an_unusable_answer_gives_way_to_a_usable_one_but_not_the_other_way(ledger: Ledger, url: str) -> None:
    ledger.store([call("k", None, "failed")])
    assert ledger.store([call("k", "good")])["k"].text == "good"
    assert ledger.store([call("k", None, "undecidable")])["k"].text == "good"
    assert rows(url) == 3


def test_a_claim_holds_until_the_answer_is_stored(ledger: Ledger) -> None:
    mine, yours = new_owner(), new_owner()
    assert ledger.claim(["a", "b"], mine, 60).won == ["a", "b"]
    assert ledger.claim(["b", "c"], yours, 60) == (["c"], {}, ["b"])
    ledger.store([call("b")])
    second = ledger.claim(["b"], yours, 60)
    assert second.won == second.held == []
    assert second.answered["b"].text == "yes"
    ledger.release(mine, [])
    assert ledger.claim(["a"], yours, 60).held == ["a"]
    ledger.release(mine, ["a"])
    assert ledger.claim(["a"], yours, 60).won == ["a"]
    ledger.release(yours)
    assert ledger.claim(["a", "c"], mine, 60).won == ["a", "c"]


def test_a_claim_on_an_unusable_answer_is_won_only_where_it_is_to_be_asked_again(ledger: Ledger) -> None:
    ledger.store([call("k", None, "failed")])
    assert ledger.claim(["k"], new_owner(), 60).won == []
    assert ledger.claim(["k"], new_owner(), 60, replace_unusable=True).won == ["k"]


def test_a_claim_expires(ledger: Ledger) -> None:
    ledger.claim(["k"], new_owner(), -1)
    assert ledger.claim(["k"], new_owner(), 60).won == ["k"]


def test_the_claim_of_a_dead_process_counts_for_nothing(ledger: Ledger, url: str) -> None:
    script = (
        "import sys; from safevid_core.models.ledger import Ledger, new_owner;"
        "Ledger(sys.argv[1]).claim(['k'], new_owner(), 3600)"
    )
    subprocess.run(
        [sys.executable, "-c", script, url],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ledger.claim(["k"], new_owner(), 60).won == ["k"]


def test_a_ledger_that_cannot_be_opened_says_which_and_hides_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="ledger_url"):
        Ledger(f"sqlite:///{tmp_path}/file/ledger.sqlite")
    with pytest.raises(LedgerError) as error:
        Ledger("postgresql://user:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(error.value)


def test_replaying_is_fast(ledger: Ledger) -> None:
    keys = [f"{i:032x}" for i in range(50_000)]
    for start in range(0, len(keys), 5_000):
        ledger.store([call(key, "An answer of some words. " * 8) for key in keys[start : start + 5_000]])
    started = time.monotonic()
    assert len(ledger.answers(keys)) == len(keys)
    assert len(keys) / (time.monotonic() - started) > 20_000
