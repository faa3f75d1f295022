"""The stage `promotion_decision`: a log of decisions about candidates, which only grows.

A criterion that is not met holds the candidate back; where only a person's word on one checkpoint is
missing, it needs sign-off. The incumbent is what the log promoted last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from safevid_core.evaluation.leaks import refuse_leaks_of_all
from safevid_core.evaluation.promotion.criteria import Case, Criterion, Incumbent
from safevid_core.evaluation.promotion.evidence import keep_evidence
from safevid_core.evaluation.promotion.sign_off import FILE_NAME, SignOff, read_sign_offs
from safevid_core.evaluation.systems import EvaluationError, System, measured_systems, system_of
from safevid_core.lake import WHOLE, Lake, StageReport, run_stage, settings_hash
from safevid_core.records import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    DPO_CHECKPOINT,
    JUDGE_VALIDATION,
    PROMOTION_DECISION,
    SCORECARD,
    Outcome,
    StageRows,
    content_id,
)
from safevid_core.settings import Settings

Decision = Literal["promoted", "held", "needs sign-off"]
# What became of the candidate's checkpoints.
_OUTCOMES: dict[Decision, Outcome] = {"promoted": "ok", "held": "filtered", "needs sign-off": "undecidable"}
_SIGN_OFF, _DECISION = "sign_off", "decision"


def make_promotion_decision(settings: Settings, lake: Lake) -> StageReport:
    """Decide about the candidate of the settings, and append the decision to the log.

    Nothing is appended while verdicts, judge validation, settings and sign-offs are what they were.

    Raises:
        EvaluationError: If the candidate is no aligned policy or has no checkpoint, nothing is measured, the
            sign-off file cannot be read, or a checkpoint was trained on what a benchmark asks about.
    """
    refuse_leaks_of_all(settings, lake)
    candidate = candidate_of(settings)
    trained = lake.read(DPO_CHECKPOINT, candidate.name).sort("seed")
    checkpoints = trained["checkpoint_id"].to_list()
    if not checkpoints:
        raise EvaluationError(
            f"candidate {candidate.name} has no checkpoint; materialise dpo_checkpoint first"
        )
    path = settings.evaluation.promotion.sign_off or lake.root / FILE_NAME
    signed = {f"sign-off {number}": each for number, each in enumerate(read_sign_offs(path), start=1)}

    def compute() -> StageRows:
        log = lake.read(PROMOTION_DECISION, WHOLE).select(PROMOTION_DECISION.schema.names())
        case = Case(settings, lake, candidate, checkpoints, incumbent_of(log))
        word = next((each for each in reversed(signed.values()) if each.checkpoint in checkpoints), None)
        criteria = [*case.criteria(), _sign_off(candidate, word, path)]
        decision = decide(criteria)
        criteria.append(_summary(criteria, decision))
        told = {
            "number": 1 + max(log["number"], default=0),
            "candidate": candidate.name,
            "checkpoints": checkpoints,
            "release": ", ".join(trained["release"].drop_nulls().unique().sort()) or None,
            "scorecard": manifest.content_hash if (manifest := lake.manifest(SCORECARD.name)) else None,
            "incumbent": case.incumbent.system if case.incumbent else None,
            "incumbent_checkpoint": case.incumbent.checkpoint if case.incumbent else None,
            "decision": decision,
            "checkpoint": word.checkpoint if word else None,
            "signed_by": word.name if word else None,
            "signed_on": word.date.isoformat() if word else None,
            "evidence": keep_evidence(lake, case.measured, candidate),
            "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        rows = PROMOTION_DECISION.frame(_row(told, place, each) for place, each in enumerate(criteria))
        outcomes = [(each, _OUTCOMES[decision], criteria[-1].reason) for each in checkpoints]
        outcomes += [(number, *_counts(each, checkpoints)) for number, each in signed.items()]
        return StageRows(pl.concat([log, rows]), outcomes, _info(told, criteria))

    inputs = {
        "rows": _rows_hash(settings, lake, candidate),
        "checkpoints": content_id(*checkpoints),
        "sign_offs": content_id(*(each.model_dump_json() for each in signed.values())),
        "settings": settings_hash(
            settings.evaluation.promotion, candidate.name, settings.evaluation.benchmarks, settings.systems,
            settings.evaluation.bootstrap_draws, settings.seed,
        ),
    }  # fmt: skip
    return run_stage(lake, PROMOTION_DECISION, WHOLE, inputs, [*checkpoints, *signed], compute)


def candidate_of(settings: Settings) -> System:
    """The system to decide about.

    Raises:
        EvaluationError: If it is no aligned policy, or the settings have none.
    """
    name = settings.evaluation.promotion.candidate
    if name is not None:
        found = system_of(settings, name)
        if found.is_control or found.data_scale == 0:
            raise EvaluationError(
                f"candidate {name} is no aligned policy; name one in evaluation.promotion.candidate"
            )
        return found
    aligned = [each for each in measured_systems(settings) if not each.is_control and each.data_scale > 0]
    if not aligned:
        raise EvaluationError("the settings align no policy, so there is none to promote")
    first = [each for each in aligned if each.policy == aligned[0].policy]
    return max(first, key=lambda each: each.data_scale)


def incumbent_of(log: pl.DataFrame) -> Incumbent | None:
    """What a log promoted last; None where it promoted nothing."""
    promoted = log.filter((pl.col("criterion") == _DECISION) & (pl.col("decision") == "promoted"))
    if promoted.is_empty():
        return None
    last = promoted.sort("number").row(-1, named=True)
    return Incumbent(
        last["number"], last["candidate"], last["checkpoints"], last["checkpoint"], last["evidence"]
    )


def decide(criteria: Sequence[Criterion]) -> Decision:
    """What comes of the criteria, the sign-off among them."""
    missed = {each.name for each in criteria if each.met is False}
    if not missed:
        return "promoted"
    return "needs sign-off" if missed == {_SIGN_OFF} else "held"


def _sign_off(candidate: System, word: SignOff | None, path: Path) -> Criterion:
    if word is None:
        reason = f"no sign-off in {path.name} is for a checkpoint of {candidate.name}"
        return Criterion(_SIGN_OFF, None, None, None, False, reason)
    reason = f"{word.name} on {word.date.isoformat()} for checkpoint {word.checkpoint}"
    return Criterion(_SIGN_OFF, None, None, None, True, f"{reason}: {word.note}" if word.note else reason)


def _counts(word: SignOff, checkpoints: Sequence[str]) -> tuple[Outcome, str]:
    if word.checkpoint in checkpoints:
        return "ok", ""
    return "filtered", f"is for checkpoint {word.checkpoint}, which is none of the candidate's"


def _summary(criteria: Sequence[Criterion], decision: Decision) -> Criterion:
    missed = [
        f"{each.name} on {each.benchmark}" if each.benchmark else each.name
        for each in criteria
        if each.met is False
    ]
    reason = f"not met: {', '.join(missed)}" if missed else "every criterion that applies is met"
    return Criterion(_DECISION, None, None, None, decision == "promoted", f"{decision}; {reason}")


def _row(told: dict[str, Any], place: int, criterion: Criterion) -> dict[str, Any]:
    return {
        **told,
        # A table is kept in the order of its ids, a log oldest first.
        "criterion_id": f"{told['number']:06d}-{place:03d}",
        "benchmark": criterion.benchmark,
        "criterion": criterion.name,
        "threshold": criterion.threshold,
        "figure": criterion.figure,
        "met": criterion.met,
        "reason": criterion.reason,
    }


def _info(told: dict[str, Any], criteria: Sequence[Criterion]) -> dict[str, Any]:
    """The decision for the record, without what is None."""
    names = ("number", "candidate", "decision", "incumbent", "signed_by", "signed_on")
    return {
        **{name: told[name] for name in names if told[name] is not None},
        "why": criteria[-1].reason,
        "calls": 0,
        "cached_calls": 0,
        "cost_usd": 0.0,
    }


def _rows_hash(settings: Settings, lake: Lake, candidate: System) -> str:
    """A hash of the tables' rows that a decision rests on, and of who judged."""
    systems = dict.fromkeys((*settings.systems, candidate.name))
    benchmarks = settings.evaluation.benchmarks
    measurements = [f"{system}|{benchmark}" for system in systems for benchmark in benchmarks]
    read = [(name, WHOLE) for name in (*benchmarks, JUDGE_VALIDATION.name)]
    read += [(DESCRIPTIONS.name, scene) for scene in lake.partitions(DESCRIPTIONS.name)]
    read += [(table.name, each) for table in (BENCHMARK_RESPONSES, BENCHMARK_SCORES) for each in measurements]
    found = ((place, manifest) for place in read if (manifest := lake.manifest(*place)) is not None)
    return content_id(
        *(
            (place, manifest.content_hash, sorted(manifest.outcomes.items()), manifest.inputs.get("judges"))
            for place, manifest in found
        )
    )
