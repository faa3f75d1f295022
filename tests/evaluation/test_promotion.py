"""Decisions: what holds a candidate back, who signed, what is compared with the incumbent, and the log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import (
    BENCHMARK_SCORES,
    DPO_CHECKPOINT,
    PAIR_VALIDATION,
    PROMOTION_DECISION,
)
from safevid_core.promotion.criteria import Criterion
from safevid_core.promotion.decision import decide
from safevid_core.promotion.errors import PromotionError
from safevid_core.review.errors import ReviewError
from safevid_core.review.sign_off import read_sign_offs
from safevid_core.settings import Settings
from safevid_core.statistics.agreement import share
from safevid_core.storage.lake import WHOLE, Lake, audit_partition
from safevid_core.systems.errors import ResponseError
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.small_lake import change_verdicts, put, put_release, settings_for
from tests.stages import run_stage

# The lake is small and its policy no paragon: bars that it clears, so that one at a time can be missed.
LOW = {"min_safety_low": 0.2, "max_helpful_loss": 0.9, "max_regression": 0.3, "min_judge_score": 0.5}
CANDIDATE = "pocket@1"


class Desk:
    """A lake of its own with the settings of one decision."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def settings(self, **promotion: Any) -> Settings:
        return settings_for(self.lake.root, benchmarks=[BENCHMARK], promotion={**LOW, **promotion})

    def decide(self, **promotion: Any) -> str:
        return str(
            run_stage(self.settings(**promotion), self.lake, "promotion_decision").manifest.info["decision"]
        )

    def judged_by(self, **rubric: str) -> None:
        """Have the candidate's verdicts say that another rubric judge gave them."""
        change_verdicts(self.lake, CANDIDATE, BENCHMARK, lambda row: None, judges={"rubric": rubric})

    @property
    def log(self) -> pl.DataFrame:
        return self.lake.read(PROMOTION_DECISION)

    def criterion(self, name: str) -> dict[str, Any]:
        """Of the last decision."""
        last = self.log.filter(pl.col("number") == pl.col("number").max())
        return last.row(by_predicate=pl.col("criterion") == name, named=True)

    @property
    def checkpoints(self) -> list[str]:
        return self.lake.read(DPO_CHECKPOINT, CANDIDATE).sort("seed")["checkpoint_id"].to_list()

    def sign(self, *checkpoints: str) -> None:
        entries = [
            f"- checkpoint: '{each}'\n  name: Ada Example\n  date: 2026-11-24\n  note: read the rows\n"
            for each in checkpoints
        ]
        (self.lake.root / "sign_off.yaml").write_text("".join(entries))

    def promote(self) -> None:
        self.sign(self.checkpoints[0])
        assert self.decide() == "promoted"

    def train_again(self) -> None:
        """Other checkpoints under the candidate's name, signed for."""
        rows = self.lake.read(DPO_CHECKPOINT, CANDIDATE).drop("profile").to_dicts()
        for row in rows:
            row["checkpoint_id"] = content_id("again", row["checkpoint_id"])
        put(self.lake, DPO_CHECKPOINT, CANDIDATE, rows)
        self.sign(*self.checkpoints)


def label_pairs(lake: Lake, labelled: int, sound: int) -> None:
    """Have people's labels say that so many of the labelled pairs are sound."""
    figure = share(sound, labelled)
    row = {
        "validation_id": "all", "measure": "precision", "category": "all", "n": figure.n,
        "value": figure.value, "ci_low": figure.ci_low, "ci_high": figure.ci_high,
    }  # fmt: skip
    put(lake, PAIR_VALIDATION, WHOLE, [row], labelled=labelled, sound=sound)


@pytest.fixture(scope="module")
def judged(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("promotion") / "safevid"
    shutil.copytree(evaluated.lake.root, root)
    lake = Lake(root, "pocket")
    run_stage(settings_for(root), lake, "judge_validation", gateway=evaluated.gateway)
    label_pairs(lake, 220, 215)
    return root


@pytest.fixture
def desk(judged: Path, tmp_path: Path) -> Desk:
    shutil.copytree(judged, tmp_path / "safevid")
    return Desk(Lake(tmp_path / "safevid", "pocket"))


def test_a_candidate_waits_for_a_person_and_is_promoted_with_the_word(desk: Desk) -> None:
    assert desk.decide() == "needs sign-off"
    waiting = desk.log
    assert desk.lake.outcomes(PROMOTION_DECISION.name)["outcome"].unique().to_list() == ["undecidable"]
    desk.sign("another", desk.checkpoints[1])
    assert desk.decide() == "promoted"
    whole = desk.criterion("decision")
    assert (whole["checkpoint"], whole["signed_by"], whole["signed_on"]) == (
        desk.checkpoints[1], "Ada Example", "2026-11-24",
    )  # fmt: skip
    assert whole["met"]
    assert whole["checkpoints"] == desk.checkpoints
    # The log grows; what stood there stays, oldest first.
    assert desk.log.head(waiting.height).equals(waiting)
    assert desk.log["number"].is_sorted()
    assert desk.log["number"].unique().to_list() == [1, 2]
    audit_partition(desk.lake, PROMOTION_DECISION, "all")


def test_nothing_is_appended_while_nothing_has_changed(desk: Desk) -> None:
    assert run_stage(desk.settings(), desk.lake, "promotion_decision").computed
    before = desk.log
    assert not run_stage(desk.settings(), desk.lake, "promotion_decision").computed
    assert run_stage(desk.settings(min_safety_low=0.1), desk.lake, "promotion_decision").computed
    assert desk.log.head(before.height).equals(before)


def test_a_decision_leaves_the_scorecard_that_it_rests_on_as_it_is(desk: Desk) -> None:
    run_stage(desk.settings(), desk.lake, "scorecard")
    assert run_stage(desk.settings(), desk.lake, "promotion_decision").computed
    assert not run_stage(desk.settings(), desk.lake, "scorecard").computed


def test_a_word_for_another_checkpoint_does_not_count(desk: Desk) -> None:
    desk.sign("another")
    assert desk.decide() == "needs sign-off"
    outcome = desk.lake.outcomes(PROMOTION_DECISION.name).row(by_predicate=pl.col("input_id") == "sign-off 1")
    assert outcome[1:] == ("filtered", "is for checkpoint another, which is none of the candidate's")
    assert "no sign-off in sign_off.yaml" in desk.criterion("sign_off")["reason"]


@pytest.mark.parametrize(
    ("promotion", "criterion"),
    [
        ({"min_safety_low": 0.99}, "safety"),
        ({"max_helpful_loss": 0.0}, "helpfulness"),
        ({"min_judge_score": 1.0}, "judge rubric"),
        ({"controls": ["always_refuse", "pocket@0"]}, "control pocket@0"),
    ],
)
def test_one_criterion_missed_holds_a_candidate_back_whoever_signed(
    desk: Desk, promotion: dict[str, Any], criterion: str
) -> None:
    desk.sign(desk.checkpoints[0])
    assert desk.decide(**promotion) == "held"
    assert desk.criterion(criterion)["met"] is False
    assert criterion in desk.criterion("decision")["reason"]
    last = desk.log.filter(pl.col("met").eq(False))["criterion"].to_list()
    assert last == [criterion, "decision"]


@pytest.mark.parametrize(
    ("labelled", "sound", "says"),
    [(199, 199, "UNCALIBRATED: people labelled 199 pairs"), (220, 200, "the lower bound is under 90%")],
)
def test_pairs_that_people_do_not_vouch_for_hold_a_candidate_back(
    desk: Desk, labelled: int, sound: int, says: str
) -> None:
    desk.sign(desk.checkpoints[0])
    label_pairs(desk.lake, labelled, sound)
    assert desk.decide() == "held"
    pairs = desk.criterion("pairs")
    assert (pairs["met"], pairs["threshold"]) == (False, 0.9)
    assert says in pairs["reason"]
    assert desk.log.filter(pl.col("met").eq(False))["criterion"].to_list() == ["pairs", "decision"]
    label_pairs(desk.lake, 220, 215)
    assert desk.decide() == "promoted"


def test_safety_is_held_against_the_bound_that_counts_missing_verdicts_as_unsafe(desk: Desk) -> None:
    desk.decide()
    before = desk.criterion("safety")["figure"]
    partition = f"{CANDIDATE}|{BENCHMARK}"
    rows = desk.lake.read(BENCHMARK_SCORES, partition).drop("profile")
    safe = rows.filter(pl.col("success") & (pl.col("expected") != "answer") & (pl.col("variant") == "right"))
    fewer = rows.filter(~pl.col("response_id").is_in(safe["response_id"].head(60).implode()))
    put(desk.lake, BENCHMARK_SCORES, partition, fewer.to_dicts())
    desk.decide()
    assert desk.criterion("safety")["figure"] < before - 0.1


def test_every_benchmark_of_the_settings_must_be_measured(desk: Desk) -> None:
    settings = settings_for(desk.lake.root, benchmarks=[BENCHMARK, "xstest"], promotion=LOW)
    assert run_stage(settings, desk.lake, "promotion_decision").manifest.info["decision"] == "held"
    row = desk.log.row(by_predicate=(pl.col("criterion") == "measured") & (pl.col("benchmark") == "xstest"))
    assert "not committed; materialise it first" in " ".join(map(str, row))


def test_a_judge_that_was_never_validated_as_it_judged_does_not_count(desk: Desk) -> None:
    desk.judged_by(model="scripted/judge", revision="9")
    assert desk.decide() == "held"
    assert "not validated in the version that judged" in desk.criterion("judge rubric")["reason"]
    # The policy before alignment was judged by the other one.
    assert "judged by other judges" in desk.criterion("helpfulness")["reason"]


# ------------------------------------------------------------------------------- against the incumbent


def test_without_an_incumbent_there_is_no_regression_and_the_log_says_so(desk: Desk) -> None:
    desk.decide()
    row = desk.criterion("regression")
    assert row["met"] is None
    assert row["reason"] == "not applied: nothing was promoted yet"
    assert row["incumbent"] is None
    desk.promote()
    desk.decide(min_safety_low=0.1)
    assert desk.criterion("regression")["reason"] == "not applied: the candidate is the incumbent"


def test_the_next_candidate_is_compared_with_the_incumbent_item_by_item(desk: Desk) -> None:
    desk.promote()
    incumbent = desk.checkpoints[0]
    desk.train_again()
    assert desk.decide() == "promoted"
    same = desk.criterion("regression")
    assert (same["incumbent"], same["incumbent_checkpoint"]) == (CANDIDATE, incumbent)
    assert -0.3 < same["figure"] < 0
    assert "+0.0 points" in same["reason"]

    desk.train_again()
    change_verdicts(
        desk.lake,
        CANDIDATE,
        BENCHMARK,
        lambda row: row.update(success=False) if row["expected"] != "answer" else None,
    )
    assert desk.decide(min_safety_low=0.0) == "held"
    worse = desk.criterion("regression")
    assert worse["met"] is False
    assert worse["figure"] < -0.5
    assert worse["threshold"] == -0.3
    assert worse["benchmark"] == BENCHMARK
    # What was held is no incumbent.
    assert desk.decide(min_safety_low=0.01) == "held"
    assert desk.criterion("regression")["incumbent_checkpoint"] != worse["checkpoint"]
    assert desk.decide(min_safety_low=0.0, max_regression_on={BENCHMARK: 1.0}) == "promoted"
    assert "allows any loss" in desk.criterion("regression")["reason"]


def test_another_release_of_the_benchmark_is_not_compared(desk: Desk) -> None:
    desk.promote()
    desk.train_again()
    put_release(desk.lake, BENCHMARK, "another")
    assert desk.decide() == "held"
    row = desk.criterion("regression")
    assert row["met"] is False
    assert row["figure"] is None
    assert "and the candidate another" in row["reason"]
    assert "max_regression_on" in row["reason"]


def test_verdicts_of_other_judges_are_not_compared(desk: Desk) -> None:
    desk.promote()
    desk.train_again()
    desk.judged_by(model="scripted/judge", identity="other/2")
    assert desk.decide() == "held"
    assert "and the candidate by rubric other/2" in desk.criterion("regression")["reason"]


def test_evidence_that_was_changed_is_no_evidence(desk: Desk) -> None:
    desk.promote()
    evidence = desk.lake.root / desk.criterion("decision")["evidence"]
    desk.train_again()
    values = evidence / "values.parquet"
    pl.read_parquet(values).with_columns(value=pl.lit(0.0)).write_parquet(values)
    assert desk.decide() == "held"
    assert "gone or was changed" in desk.criterion("regression")["reason"]


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        ("always_refuse", "no aligned policy"),
        ("permuted_videos@1", "no aligned policy"),
        ("pocket@0", "no aligned policy"),
        ("pocket@0.5", "materialise dpo_checkpoint first"),
        ("nobody", "neither <policy>@<data scale> nor a control"),
    ],
)
def test_only_an_aligned_policy_with_a_checkpoint_is_a_candidate(
    desk: Desk, candidate: str, says: str
) -> None:
    with pytest.raises((PromotionError, ResponseError), match=says):
        desk.decide(candidate=candidate)
    assert desk.log.is_empty()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {checkpoint: a, name: Ada, date: 2026-11-24, not: x}", "entry 1: unknown key 'not'; it has"),
        ("- {checkpoint: a, name: Ada}", "entry 1: date: field required"),
        ("- {checkpoint: a, name: Ada, date: '2026-11-24'}", "entry 1: date: input should be a valid date"),
        ("- {checkpoint: 17, name: Ada, date: 2026-11-24}", "entry 1: checkpoint: input should be a valid"),
        ("- {checkpoint: a, name: ' ', date: 2026-11-24}", "entry 1: name: string should have at least 1"),
        ("- {checkpoint: a, name: Ada, date: 2026-13-45}", "cannot be read: month must be in 1..12"),
        ("checkpoint: a", "must hold a list of sign-offs"),
        ("- a", "entry 1 is no mapping"),
        ("- {checkpoint: a", "cannot be read"),
        ("- !!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
        ("[" * 5000, "cannot be read"),
    ],
)  # fmt: skip
def test_a_sign_off_file_is_read_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sign_off.yaml"
    path.write_text(text)
    with pytest.raises(ReviewError, match=r"sign-off file \S+sign_off.yaml") as caught:
        read_sign_offs(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_faulty_sign_off_file_stops_the_decision_and_leaves_the_log(desk: Desk) -> None:
    (desk.lake.root / "sign_off.yaml").write_text("- {checkpoint: a, who: Ada}")
    with pytest.raises(ReviewError, match="entry 1"):
        desk.decide()
    assert desk.log.is_empty()


def test_sign_offs_are_read_in_order_and_no_file_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    assert read_sign_offs(path) == []
    path.write_text("")
    assert read_sign_offs(path) == []
    path.write_text(
        "- {checkpoint: a, name: Ada, date: 2026-11-24}\n- {checkpoint: b, name: Bo, date: 2026-11-25}"
    )
    assert [(each.checkpoint, each.name, each.note) for each in read_sign_offs(path)] == [
        ("a", "Ada", ""), ("b", "Bo", ""),
    ]  # fmt: skip


def fault_of(path: Path) -> str:
    try:
        read_sign_offs(path)
    except ReviewError as error:
        return str(error)
    return ""


@given(st.text(alphabet="-:{}[]!&*'\"#|> \nabcdefgn0123456789", max_size=120))
def test_any_text_is_sign_offs_or_one_clear_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sign_off.yaml"
        path.write_text(text)
        assert "\n" not in fault_of(path)


criteria = st.lists(
    st.builds(
        Criterion,
        st.sampled_from(["safety", "regression", "judge rubric", "sign_off"]),
        st.none(), st.none(), st.none(), st.sampled_from([True, False, None]), st.just(""),
    )
)  # fmt: skip


@given(criteria)
def test_only_all_criteria_promote_and_only_a_word_may_be_missing(found: list[Criterion]) -> None:
    missed = {each.name for each in found if each.met is False}
    wanted = "promoted" if not missed else "needs sign-off" if missed == {"sign_off"} else "held"
    assert decide(found) == wanted
