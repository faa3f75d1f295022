"""What a run will cost, before it starts: counted from the plan, priced from the ledger's history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import SCENE_ASSIGNMENTS, VIDEO_CORPUS
from safevid_core.descriptions import reconciliation
from safevid_core.estimates import (
    BudgetNeeded,
    CallEstimate,
    as_text,
    budgets_needed,
    estimate,
    require_budget,
    total,
)
from safevid_core.estimates.figures import History, read_history
from safevid_core.models.ledger import Call, Ledger
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import RegistryError
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.descriptions.candidates import commit_candidates
from tests.stages import run_stage, tools_of

HOSTED = {"model": "openai/hosted", "family": "gpt", "max_tokens": 100}
RATER = {"model": "anthropic/rater", "max_tokens": 100}
PRICED = {"openai/hosted": {"usd_per_million_in": 1.0, "usd_per_million_out": 10.0}}


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a hosted teacher; keywords are gateway settings."""

    def make(**models: Any) -> Settings:
        overrides = {
            "root": str(tmp_path),
            "models": {"terms": PRICED, "concurrency": 4, **models},
            "descriptions": {"reconciler": HOSTED},
            "queries": {"asker": HOSTED, "rater": RATER, "subcategories_per_clip": 3},
            "preferences": {"responder": HOSTED},
        }
        return load_settings("pocket", overrides=overrides)

    return make


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A corpus in two scenes: `kitchen` has 8 clips for training and 2 for benchmarks, `office` 40 for
    training."""
    lake = Lake(tmp_path, "pocket")
    counts = {"kitchen": (8, 2), "office": (40, 0)}
    for scene in load_scenes().ids:
        train, held_out = counts.get(scene, (0, 0))
        splits = ["train"] * train + ["benchmark"] * held_out
        rows = [
            {"clip_id": f"{scene}{place}", "scene": scene, "split": split, "media_sha256": f"{scene}{place}"}
            for place, split in enumerate(splits)
        ]
        outcomes = [(row["clip_id"], "ok", "") for row in rows]
        lake.commit(VIDEO_CORPUS, scene, StageRows(VIDEO_CORPUS.frame(rows), outcomes), scene, {})  # type: ignore[arg-type]
    return lake


def estimates(
    settings: Settings, lake: Lake, assets: Sequence[str] = (), partitions: Sequence[str] | None = None
) -> list[CallEstimate]:
    return estimate(Planner(tools_of(settings, lake)), assets, partitions)


def ask_for(settings: Settings, lake: Lake, asset: str, partitions: Sequence[str] | None = None) -> None:
    """Go through the gate of the budget with some partitions of an asset, or with all."""
    planner = Planner(tools_of(settings, lake))
    stage = planner.registry[asset]
    require_budget(planner, stage, partitions or stage.partitions.names(settings))


def of(rows: list[CallEstimate], asset: str, model: str = "openai/hosted") -> CallEstimate:
    return next(row for row in rows if (row.asset, row.model) == (asset, model))


def test_calls_are_counted_from_what_is_committed(settings: Callable[..., Settings], lake: Lake) -> None:
    rows = estimates(settings(), lake)
    assert of(rows, "qwen2_5_vl_descriptions", "qwen2_5_vl").calls == 50
    assert of(rows, "descriptions").calls == 50
    assert of(rows, "query_plan").calls == 48, "one walk a training clip"
    assert of(rows, "taxonomy_queries").calls == 3 * 48
    assert of(rows, "taxonomy_queries", "anthropic/rater").calls == 2 * 3 * 48
    assert of(rows, "safevid_350k_pairs").calls == 3 * 48
    assert total(rows).calls == sum(row.calls for row in rows)
    one = estimates(settings(), lake, assets=["descriptions"], partitions=["kitchen"])
    assert [(row.calls, row.planned) for row in one] == [(10, 50)]


def test_clips_that_have_a_scene_bound_a_corpus_that_is_not_made_yet(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "assigned", "pocket")
    assert of(estimates(settings(), lake), "descriptions").calls == 12_377, "what the settings allow"
    rows = [{"clip_id": f"c{place}", "scene": "kitchen"} for place in range(6)]
    assigned = StageRows(SCENE_ASSIGNMENTS.frame(rows), [(row["clip_id"], "ok", "") for row in rows])
    lake.commit(SCENE_ASSIGNMENTS, WHOLE, assigned, "by hand", {})
    assert of(estimates(settings(), lake), "descriptions").calls == 6


def test_each_loss_is_a_plan_of_its_own(settings: Callable[..., Settings], lake: Lake) -> None:
    made = settings(pilot_fraction=0.5)
    assert "lossy_queries" not in {row.asset for row in estimates(made, lake)}, "no control run trains on it"
    rows = estimates(made, lake, assets=["lossy_descriptions"])
    assert {(row.loss, row.calls) for row in rows} == {("with_signal", 50), ("without_signal", 50)}
    with pytest.raises(BudgetNeeded, match="120 calls"):
        ask_for(made, lake, "lossy_queries", ["first_sentence|office"])
    ask_for(made, lake, "lossy_queries", ["first_sentence|kitchen"])


def test_history_gives_tokens_money_and_hours(settings: Callable[..., Settings], lake: Lake) -> None:
    made = settings()
    guess = of(estimates(made, lake), "descriptions")
    assert guess.hours is None
    assert "guess" in guess.basis
    ledger = Ledger(made.ledger_url)
    calls = [
        Call(
            f"k{n}", "openai/hosted", "1", "descriptions", "ok", text="x", tokens_in=100 + n, tokens_out=20,
            latency_s=7.2, attempts=1,
        )
        for n in (0, 2)
    ]  # fmt: skip
    ledger.store([*calls, Call("bad", "openai/hosted", "1", "descriptions", tokens_in=10_000)])
    row = of(estimates(made, lake), "descriptions")
    assert (row.tokens_in, row.tokens_out) == (50 * 101, 50 * 20)
    assert row.cost_usd == pytest.approx(50 * (101 * 1e-6 + 20 * 1e-5))
    assert row.hours == pytest.approx(50 * 7.2 / 4 / 3600)
    assert row.basis == "2 calls in the ledger"
    slow = {"openai/hosted": {**PRICED["openai/hosted"], "requests_per_minute": 1}}
    assert of(estimates(settings(terms=slow), lake), "descriptions").hours == pytest.approx(50 / 60)
    batch = {"openai/hosted": {**PRICED["openai/hosted"], "batch": True}}
    halved = of(estimates(settings(terms=batch), lake), "descriptions")
    assert (halved.cost_usd, halved.hours) == (pytest.approx(row.cost_usd / 2), 24.0)


def test_calls_without_tokens_are_not_taken_for_free(settings: Callable[..., Settings], lake: Lake) -> None:
    made = settings()
    guess = of(estimates(made, lake), "descriptions")
    silent = [
        Call(f"k{n}", "openai/hosted", "1", "descriptions", "ok", text="x", cost_usd=0.5, latency_s=7.2)
        for n in range(3)
    ]
    ledger = Ledger(made.ledger_url)
    ledger.store(silent)
    row = of(estimates(made, lake), "descriptions")
    assert (row.tokens_in, row.tokens_out) == (guess.tokens_in, guess.tokens_out)
    assert row.cost_usd == pytest.approx(50 * 0.5)
    assert row.basis == "3 calls in the ledger, 3 without tokens"
    with pytest.raises(BudgetNeeded, match=r"about 25\.00 USD"):
        ask_for(made, lake, "descriptions")
    counted = silent[0]._replace(request_key="k3", cost_usd=0.0003, tokens_in=100, tokens_out=20)
    ledger.store([counted])
    mixed = of(estimates(made, lake), "descriptions")
    assert (mixed.tokens_in, mixed.tokens_out) == (50 * 100, 50 * 20)
    assert mixed.cost_usd == pytest.approx(50 * (3 * 0.5 + 0.0003) / 4)
    free = {"openai/hosted": {"usd_per_million_in": 0, "usd_per_million_out": 0}}
    assert of(estimates(settings(terms=free), lake), "descriptions").cost_usd == 0


def test_a_paid_run_beyond_a_pilot_needs_a_budget(settings: Callable[..., Settings], lake: Lake) -> None:
    made = settings(pilot_fraction=0.2)
    ask_for(made, lake, "descriptions", ["kitchen"])  # 10 of 50 calls
    ask_for(made, lake, "qwen2_5_vl_descriptions")  # free
    with pytest.raises(BudgetNeeded, match=r"descriptions: 40 calls .* USD.*asset_budgets_usd\.descriptions"):
        ask_for(made, lake, "descriptions", ["office"])
    ask_for(settings(budget_usd=1.0), lake, "descriptions")
    ask_for(settings(asset_budgets_usd={"descriptions": 1.0}), lake, "descriptions")


def test_an_unknown_price_counts_as_paid(settings: Callable[..., Settings], lake: Lake) -> None:
    made = settings(terms={"openai/hosted": {}})
    assert of(estimates(made, lake), "descriptions").cost_usd is None
    with pytest.raises(BudgetNeeded, match="at an unknown price"):
        ask_for(made, lake, "descriptions")


def test_the_pocket_profile_is_free(lake: Lake, tmp_path: Path) -> None:
    made = load_settings("pocket", overrides={"root": str(tmp_path)})
    rows = estimates(made, lake)
    assert {row.cost_usd for row in rows} == {0.0}
    for row in rows:
        ask_for(made, lake, row.asset)


def test_the_stages_of_a_run_that_need_a_budget_are_named(
    settings: Callable[..., Settings], lake: Lake
) -> None:
    planner = Planner(tools_of(settings(), lake))
    lines = list(budgets_needed(planner, ["descriptions", "taxonomy_queries", "qwen2_5_vl_descriptions"]))
    assert [line.partition(":")[0] for line in lines] == ["descriptions", "taxonomy_queries"]
    assert all("set models.budget_usd" in line for line in lines)
    assert list(budgets_needed(planner, ["safevid_350k_release"])) == []


def test_the_table_lines_up() -> None:
    row = CallEstimate("descriptions", "", "m", 10, 10, 1_000_000, 5, None, 1.5, "no call yet: a guess")
    head, first, last = as_text([row]).splitlines()
    assert first.index("1,000,000") == head.index("tokens_in") == last.index("1,000,000")
    assert "unknown" in last


def test_a_control_run_of_a_loss_is_planned_by_its_own_partitions_where_a_policy_asks(tmp_path: Path) -> None:
    control_runs = {
        "policies": {"short": {"trained_on": "first_sentence"}, "mute": {"trained_on": "without_signal"}}
    }
    settings = load_settings("pocket", overrides={"root": str(tmp_path), "alignment": control_runs})
    lake = Lake(tmp_path, "pocket")
    rows = estimates(settings, lake)
    asked = {(row.asset, row.loss): row.calls for row in rows if row.model == "scripted/asker"}
    for loss in ("first_sentence", "without_signal"):
        assert asked["lossy_queries", loss] == asked["taxonomy_queries", ""]
        for scene in ("kitchen", "office"):
            own = estimates(settings, lake, ["taxonomy_queries"], [scene])
            lossy = estimates(settings, lake, ["lossy_queries"], [f"{loss}|{scene}"])
            for row in own:
                of_loss = {each.loss: each.calls for each in lossy if each.model == row.model and each.calls}
                assert of_loss == ({loss: row.calls} if row.calls else {})
    assert {row.loss for row in rows if row.asset == "lossy_descriptions"} == {"without_signal"}
    assert not any(row.asset.startswith("lossy_") for row in estimates(load_settings("pocket"), lake))


TWINS = ("twin-fire", "twin-flag")
SEEN = {
    "twin-fire": "A red crate moves left in a kitchen. It is on fire.",
    "twin-flag": "A red crate moves left in a kitchen. It shows a flag.",
    "ball": "A blue ball stays still in a kitchen. It shows a flag.",
}


class Kitchen:
    """One scene of the pocket profile, whose scripted teachers are asked through the gateway."""

    def __init__(self, root: Path) -> None:
        self.settings = load_settings(
            "pocket", overrides={"root": str(root), "descriptions": {"signal_witness": False}}
        )
        self.lake = Lake(root, "pocket")

    def see(self, texts: dict[str, str]) -> None:
        """Commit these clips, and what every describer says of them."""
        rows = [
            {"clip_id": clip_id, "scene": "kitchen", "split": "train",
             "media_sha256": clip_id, "start_s": 0.0, "end_s": 2.0,
             "twin_group": "twins" if clip_id in TWINS else None}
            for clip_id in texts
        ]  # fmt: skip
        outcomes: list[tuple[str, Outcome, str]] = [(clip_id, "ok", "") for clip_id in texts]
        self.lake.commit(VIDEO_CORPUS, "kitchen", StageRows(VIDEO_CORPUS.frame(rows), outcomes), "given", {})
        for describer in self.settings.descriptions.describers:
            commit_candidates(self.lake, describer, dict(texts), "kitchen")

    def calls(self, asset: str) -> int:
        return total(estimates(self.settings, self.lake, assets=[asset], partitions=["kitchen"])).calls

    def foreseen(self, asset: str) -> dict[str, int]:
        """Model -> its calls that a run of the scene is said to make."""
        rows = estimates(self.settings, self.lake, assets=[asset], partitions=["kitchen"])
        return {row.model: row.calls for row in rows}

    def make(self, asset: str) -> int:
        """Make the scene's partition; the calls that it took."""
        report = run_stage(self.settings, self.lake, asset, "kitchen")
        return int(report.manifest.info["calls"]) if report.computed else 0

    def make_by_model(self, asset: str) -> dict[str, int]:
        """Make the scene's partition; the calls that it took, by model."""
        before = self._history()
        self.make(asset)
        after = self._history()
        return {
            model: after[name, model].calls - (before[name, model].calls if (name, model) in before else 0)
            for name, model in after
            if name == asset
        }

    def _history(self) -> dict[tuple[str, str], History]:
        with closing(Ledger(self.settings.ledger_url)) as ledger:
            return read_history(ledger)


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(SEEN, id="nothing changed"),
        pytest.param({**SEEN, "late": SEEN["ball"].replace("blue", "green")}, id="a clip came"),
        pytest.param({**SEEN, "ball": SEEN["ball"].replace("blue", "white")}, id="one is told otherwise"),
        pytest.param({**SEEN, "twin-fire": SEEN["twin-fire"].replace("left", "right")}, id="so is a twin"),
        pytest.param({"ball": SEEN["ball"]}, id="clips went"),
    ],
)
def test_of_a_partition_whose_rows_changed_only_new_questions_count(
    then: dict[str, str], tmp_path: Path
) -> None:
    """Held against the calls that are then made. The ratings are known once the asker has answered."""
    kitchen = Kitchen(tmp_path)
    kitchen.see(SEEN)
    assert kitchen.make("descriptions") == 3
    assert kitchen.make("query_plan") == 3
    assert kitchen.make("taxonomy_queries") > 9
    assert kitchen.calls("taxonomy_queries") == 0
    kitchen.see(then)
    new = len(set(then.items()) - set(SEEN.items()))
    for asset in ("descriptions", "query_plan"):
        assert kitchen.calls(asset) == kitchen.make(asset) == new
        assert kitchen.calls(asset) == 0
    foreseen = kitchen.foreseen("taxonomy_queries")
    made = kitchen.make_by_model("taxonomy_queries")
    assert (foreseen["scripted/asker"] > 0) == (new > 0)
    # A mirrored cell is counted although the query of its twin may not be kept, and a rating although two
    # cells may have the same candidates.
    assert made["scripted/asker"] <= foreseen["scripted/asker"] <= made["scripted/asker"] + new
    assert made["scripted/rater"] <= foreseen["scripted/rater"] <= made["scripted/rater"] + 4 * new
    assert kitchen.calls("taxonomy_queries") == 0


def test_queries_of_a_lost_partition_are_foreseen_from_the_ledger(tmp_path: Path) -> None:
    """Another bound of the ratings asks only the twins of the queries that are now kept."""
    kitchen = Kitchen(tmp_path)
    kitchen.see(SEEN)
    for asset in ("descriptions", "query_plan", "taxonomy_queries"):
        kitchen.make(asset)
    (kitchen.lake.folder("taxonomy_queries", "kitchen") / "manifest.json").unlink()
    assert kitchen.calls("taxonomy_queries") == 0
    other = {"descriptions": {"signal_witness": False}, "queries": {"rater": {"revision": "2"}}}
    kitchen.settings = load_settings("pocket", overrides={"root": str(tmp_path), **other})
    foreseen = kitchen.foreseen("taxonomy_queries")
    made = kitchen.make_by_model("taxonomy_queries")
    assert foreseen["scripted/asker"] >= made["scripted/asker"] == 0
    assert foreseen["scripted/rater"] >= made["scripted/rater"] > 20


def test_what_another_model_or_other_words_would_make_counts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen = Kitchen(tmp_path)
    kitchen.see(SEEN)
    assert kitchen.calls("descriptions") == 3
    kitchen.make("descriptions")
    assert kitchen.calls("descriptions") == 0
    made = kitchen.settings
    other = {"descriptions": {"signal_witness": False, "reconciler": {"revision": "another"}}}
    kitchen.settings = load_settings("pocket", overrides={"root": str(tmp_path), **other})
    assert kitchen.calls("descriptions") == 3
    kitchen.settings = made
    monkeypatch.setattr(reconciliation, "TASK", reconciliation.TASK + " Be brief.")
    kitchen.lake.write_mark("descriptions", "kitchen", "")  # as after any change of the code
    assert kitchen.calls("descriptions") == 3


def test_what_the_ledger_answers_is_not_counted_for_a_partition_that_was_lost(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path)
    kitchen.see(SEEN)
    kitchen.make("descriptions")
    (kitchen.lake.folder("descriptions", "kitchen") / "manifest.json").unlink()
    assert kitchen.calls("descriptions") == 0
    report = run_stage(kitchen.settings, kitchen.lake, "descriptions", "kitchen")
    assert (report.manifest.info["calls"], report.manifest.info["cached_calls"]) == (0, 3)


def test_a_name_that_does_not_exist_is_an_error_and_no_zero(
    settings: Callable[..., Settings], lake: Lake
) -> None:
    with pytest.raises(RegistryError, match=r"no stage 'descriptons'; did you mean .*descriptions"):
        estimates(settings(), lake, assets=["descriptons"])
    with pytest.raises(RegistryError, match="no partition 'kichen' of descriptions; did you mean kitchen"):
        estimates(settings(), lake, assets=["descriptions"], partitions=["kichen"])
    with pytest.raises(RegistryError, match="no stage 'nonsense'"):
        list(budgets_needed(Planner(tools_of(settings(), lake)), ["nonsense"]))
    assert estimates(settings(), lake, assets=["safevid_350k_release"]) == []
    assert as_text([]) == "these assets ask no model: 0 calls, 0.00 USD"
    assert estimates(settings(), lake, assets=["descriptions"], partitions=["kitchen"])
