"""A run's bill, read back from the ledger."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from safevid_core.models.bill import bill
from safevid_core.models.ledger import Ledger
from tests.command import is_one_line, safevid
from tests.models.test_ledger import call


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    """Three calls of two runs: one refused, one that lost the race to be served, one of another day."""
    ledger = Ledger(ledger_url)
    ledger.store([call("a", asset="descriptions", model="m", tokens_in=10, cost_usd=0.5)], "first")
    ledger.store([call("a", asset="descriptions", model="m", tokens_in=10, cost_usd=0.25)], "first")
    refused = call(
        "b", None, "undecidable", reason="provider_refusal", asset="pairs", model="n", cost_usd=0.1
    )
    ledger.store([refused], "second")
    with ledger._writing() as connection:
        connection.execute(text("update safevid_calls set created_at = 86400.9 where run = 'second'"))
    return ledger


def test_every_paid_call_is_on_the_bill_once(ledger: Ledger) -> None:
    today = datetime.fromtimestamp(time.time(), UTC).date()
    assert bill(ledger).rows() == [
        ("descriptions", "m", today, 2, 2, 0, 20, 4, 0.75),
        ("pairs", "n", date(1970, 1, 2), 1, 0, 1, 1, 2, 0.1),
    ]


def test_a_bill_is_cut_as_asked(ledger: Ledger) -> None:
    assert bill(ledger, run="second", by=("model",)).rows() == [("n", 1, 0, 1, 1, 2, 0.1)]
    assert bill(ledger, by=()).rows() == [(3, 2, 1, 21, 6, pytest.approx(0.85))]
    assert bill(ledger, run="no such run").is_empty()


def test_one_command_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_ROOT", str(tmp_path))
    Ledger(f"sqlite:///{tmp_path}/ledger.sqlite").store([call("a", asset="descriptions")], "run")
    document = json.loads(safevid("bill", "--by", "asset", "--json").stdout)
    assert [row["asset"] for row in document["rows"]] == ["descriptions"]
    assert document["total"]["cost_usd"] == 0.5
    said = safevid("bill")
    assert said.exit_code == 0
    assert "descriptions" in said.stdout
    assert said.stdout.splitlines()[-1].split()[:2] == ["in", "all"]
    assert said.stderr == ""


def test_a_ledger_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAFEVID_MODELS__LEDGER_URL", "mysql://u:hunter2@nowhere/x")
    done = safevid("bill", root=tmp_path)
    assert is_one_line(done, 2, "ledger")
    assert "hunter2" not in done.stderr
