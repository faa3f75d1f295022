"""What the ledger stores, serves and leases."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.event import listen

from safevid_core.models.ledger import LONGEST_LEASE_S, Budget, Call, Ledger, LedgerError, new_owner


def call(key: str, answer: str | None = "yes", outcome: str = "ok", **changes: object) -> Call:
    fields = {
        "request_key": key, "model": "m", "revision": "1", "asset": "x", "outcome": outcome, "reason": "",
        "text": answer, "finish_reason": "stop", "frame_times": "", "tokens_in": 1, "tokens_out": 2,
        "cost_usd": 0.5, "latency_s": 0.1, "attempts": 1,
    }  # fmt: skip
    return Call(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def rows(url: str) -> int:
    with create_engine(url).connect() as connection:
        return int(connection.scalar(text("select count(*) from safevid_calls")) or 0)


def test_calls_come_back_as_they_were_stored(ledger: Ledger) -> None:
    stored = call("k", "ünïcode \n text", frame_times="0.5,1.5")
    ledger.store([stored, call("other")])
    assert ledger.answers(["k", "missing"]) == {"k": stored}


def test_the_stored_answer_wins_and_the_loser_stays_on_the_bill(ledger: Ledger, ledger_url: str) -> None:
    ledger.store([call("k", "first")])
    assert ledger.store([call("k", "second")])["k"].text == "first"
    assert ledger.answers(["k"])["k"].text == "first"
    assert rows(ledger_url) == 2


def test_an_unusable_answer_gives_way_to_a_usable_one_but_not_the_other_way(
    ledger: Ledger, ledger_url: str
) -> None:
    ledger.store([call("k", None, "failed")])
    assert ledger.store([call("k", "good")])["k"].text == "good"
    assert ledger.store([call("k", None, "undecidable")])["k"].text == "good"
    assert rows(ledger_url) == 3


def test_a_claim_holds_until_the_answer_is_stored(ledger: Ledger) -> None:
    mine, yours = new_owner(), new_owner()
    assert ledger.acquire(["a", "b"], mine, 60).leased == ["a", "b"]
    assert ledger.acquire(["b", "c"], yours, 60) == (["c"], {}, ["b"], [])
    ledger.store([call("b")])
    second = ledger.acquire(["b"], yours, 60)
    assert second.leased == second.held == []
    assert second.answered["b"].text == "yes"
    ledger.release(mine, [])
    assert ledger.acquire(["a"], yours, 60).held == ["a"]
    ledger.release(mine, ["a"])
    assert ledger.acquire(["a"], yours, 60).leased == ["a"]
    ledger.release(yours)
    assert ledger.acquire(["a", "c"], mine, 60).leased == ["a", "c"]


def test_a_claim_on_an_unusable_answer_is_won_only_where_it_is_to_be_asked_again(ledger: Ledger) -> None:
    ledger.store([call("k", None, "failed")])
    assert ledger.acquire(["k"], new_owner(), 60).leased == []
    assert ledger.acquire(["k"], new_owner(), 60, replace_before=time.time() + 1).leased == ["k"]


def test_a_claim_expires(ledger: Ledger) -> None:
    ledger.acquire(["k"], new_owner(), -1)
    assert ledger.acquire(["k"], new_owner(), 60).leased == ["k"]


def test_a_claim_counts_for_nothing_when_its_lease_is_over_and_no_sooner(
    ledger: Ledger, ledger_url: str
) -> None:
    script = (
        "import sys; from safevid_core.models.ledger import Ledger, new_owner;"
        "Ledger(sys.argv[1]).acquire(['k'], new_owner(), float(sys.argv[2]))"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, ledger_url, "1.0"], check=True, env=path)
    # Its process is gone, which another container could not know.
    assert ledger.acquire(["k"], new_owner(), 60).held == ["k"]
    time.sleep(1.1)
    assert ledger.acquire(["k"], new_owner(), 60).leased == ["k"]


def test_a_clock_that_is_set_moves_no_lease(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    if str(ledger).startswith("Ledger(postgresql"):
        pytest.skip("its server's clock is not ours to set")
    mine, real = new_owner(), time.time
    for step_s in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: real() + step_s)
        assert ledger.acquire([f"k{step_s}"], mine, 60).leased == [f"k{step_s}"]
        monkeypatch.setattr(time, "time", real)
        assert ledger.acquire([f"k{step_s}"], new_owner(), 60).held == [f"k{step_s}"]


def test_a_claim_longer_than_any_lease_is_of_another_clock(ledger: Ledger) -> None:
    ledger.acquire(["k"], new_owner(), LONGEST_LEASE_S + 60)
    assert ledger.acquire(["k"], new_owner(), 60).leased == ["k"]


def test_what_is_asked_again_is_asked_once_by_all_who_began_before(ledger: Ledger) -> None:
    ledger.store([call("k", None, "failed")])
    began, mine = time.time(), new_owner()
    assert ledger.acquire(["k"], mine, 60, replace_before=began).leased == ["k"]
    ledger.store([call("k", None, "failed")])
    ledger.release(mine)
    assert ledger.acquire(["k"], new_owner(), 60, replace_before=began).leased == []


@pytest.mark.parametrize("name", ["lock_timeout", "idle_in_transaction_session_timeout"])
def test_nobody_holds_up_others_within_a_transaction(postgres_database: str, name: str) -> None:
    with Ledger(postgres_database).reading() as connection:
        assert connection.execute(text(f"show {name}")).scalar() in ("1min", "2min")


def test_what_a_database_does_not_take_is_reported_as_the_ledgers_error(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.store([call("k", tokens_in=10**30)])
    assert ledger.answers(["k"]) == {}


def test_a_renewed_claim_is_held(ledger: Ledger) -> None:
    mine = new_owner()
    ledger.acquire(["k"], mine, -1)
    ledger.renew(mine, 60)
    assert ledger.acquire(["k"], new_owner(), 60).held == ["k"]


def test_a_budget_is_shared_by_all_who_claim_under_one_run(ledger: Ledger) -> None:
    budget = Budget("run", "x", run_usd=1.0)
    bounds = dict.fromkeys("abcdefg", 0.4)
    mine, yours = new_owner(), new_owner()
    first = ledger.acquire(["a", "b", "c"], mine, 60, budget=budget, bounds=bounds)
    assert (first.leased, first.held, first.unaffordable) == (["a", "b"], ["c"], [])
    second = ledger.acquire(["d"], yours, 60, budget=budget, bounds=bounds)
    assert (second.leased, second.held) == ([], ["d"])
    other = budget._replace(run="another run")
    assert ledger.acquire(["e"], yours, 60, budget=other, bounds=bounds).leased == ["e"]
    ledger.store([call("a", cost_usd=0.1), call("b", cost_usd=0.1)], "run")
    assert ledger.spent("run") == pytest.approx(0.2)
    assert ledger.acquire(["d", "f"], yours, 60, budget=budget, bounds=bounds).leased == ["d", "f"]
    ledger.store([call("d", cost_usd=0.4), call("f", cost_usd=0.3)], "run")
    assert ledger.acquire(["g"], yours, 60, budget=budget, bounds=bounds).unaffordable == ["g"]


def test_an_asset_has_a_budget_of_its_own(ledger: Ledger) -> None:
    ledger.store([call("a", cost_usd=0.5, asset="x")], "run")
    bounds = dict.fromkeys("bcd", 0.4)
    poor = Budget("run", "x", run_usd=10.0, asset_usd=0.6)
    assert ledger.acquire(["b"], new_owner(), 60, budget=poor, bounds=bounds).unaffordable == ["b"]
    assert ledger.acquire(["b"], new_owner(), 60, budget=poor._replace(asset="y"), bounds=bounds).leased == [
        "b"
    ]
    assert (ledger.spent("run"), ledger.spent("run", "y")) == (0.5, 0.0)


def test_a_retired_answer_is_kept_and_served_no_more(ledger: Ledger, ledger_url: str) -> None:
    ledger.store([call("k", "unreadable"), call("other", "newer")])
    ledger.retire({"k": "unreadable", "other": "what another process retired"})
    assert set(ledger.answers(["k", "other"])) == {"other"}
    ledger.store([call("k", "good")])
    assert ledger.answers(["k"])["k"].text == "good"
    assert rows(ledger_url) == 3


def test_a_ledger_of_an_earlier_version_is_used_on(ledger_url: str) -> None:
    Ledger(ledger_url).store([call("k")])
    with create_engine(ledger_url).begin() as connection:
        connection.execute(text("drop index safevid_calls_paid"))
        connection.execute(text("alter table safevid_calls drop column run"))
        connection.execute(text("alter table safevid_claims drop column reserved_usd"))
    ledger = Ledger(ledger_url)
    assert ledger.answers(["k"])["k"] == call("k")
    assert ledger.acquire(["new"], new_owner(), 60).leased == ["new"]
    assert ledger.spent("") == 0.5


def test_a_ledger_that_cannot_be_opened_says_which_and_hides_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="ledger_url"):
        Ledger(f"sqlite:///{tmp_path}/file/ledger.sqlite")
    with pytest.raises(LedgerError) as error:
        Ledger("postgresql://user:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(error.value)


def test_many_answers_are_read_in_few_statements(ledger: Ledger) -> None:
    """A statement a key would make the replay of a whole data set wait for the server, key by key."""
    keys = [f"{i:032x}" for i in range(3_000)]
    ledger.store([call(key) for key in keys])
    statements: list[str] = []
    with ledger.reading() as connection:
        engine = connection.engine
    listen(engine, "before_cursor_execute", lambda _c, _cursor, sql, *_: statements.append(sql))
    assert len(ledger.answers(keys)) == len(keys)
    assert sum("safevid_calls" in sql for sql in statements) <= len(keys) / 100


def _open_new_ledgers(folder: Path, together: Any, rounds: int, out: Any) -> None:
    said = []
    for number in range(rounds):
        together.wait()
        try:
            Ledger(f"sqlite:///{folder}/{number}/ledger.sqlite").close()
        except LedgerError as error:
            said.append(str(error))
    out.put(said)


def test_processes_that_open_a_new_ledger_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    together, out = context.Barrier(4), context.Queue()
    arguments = (tmp_path, together, 100, out)
    processes = [context.Process(target=_open_new_ledgers, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    assert [out.get(timeout=60) for _ in processes] == [[]] * 4
    for process in processes:
        process.join()
