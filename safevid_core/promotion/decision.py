"""The stage `promotion_decision`: an append-only log of decisions about candidates.

A candidate is `promoted` if all criteria are met, `held` if one is not met, and `needs sign-off` if only the
sign-off of a person is missing. The incumbent is the system that the log promoted last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    DPO_CHECKPOINT,
    JUDGE_VALIDATION,
    PAIR_VALIDATION,
    PROMOTION_DECISION,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SCORECARD,
)
from safevid_core.promotion.criteria import Criterion, Incumbent, PromotionCase
from safevid_core.promotion.errors import PromotionError
from safevid_core.promotion.evidence import keep_evidence
from safevid_core.review.sign_off import FILE_NAME, SignOff, read_sign_offs
from safevid_core.settings import Settings
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, settings_hash
from safevid_core.storage.seals import refuse, seals_of_directory
from safevid_core.systems.leaks import READ_FOR_LEAKS, refuse_leaks_of_all
from safevid_core.systems.systems import System, measured_systems, system_of

Decision = Literal["promoted", "held", "needs sign-off"]
# Decision -> outcome of the candidate's checkpoints.
_OUTCOMES: dict[Decision, Outcome] = {"promoted": "ok", "held": "filtered", "needs sign-off": "undecidable"}
_SIGN_OFF, _DECISION = "sign_off", "decision"


def plan_promotion_decision(tools: Tools, partition: str) -> Plan:
    """Plan to decide about the candidate in the settings and to append the decision to the log.

    Nothing is appended if verdicts, judge validation, settings and sign-offs have not changed.

    Raises:
        PromotionError: If the candidate is not an aligned policy or has no checkpoint.
        MeasurementError: If nothing is measured.
        ReviewError: If the sign-off file cannot be read.
        ResponseError: If a checkpoint was trained on clips of a benchmark.
        WithdrawnError: If a checkpoint was trained on withdrawn clips.
    """
    settings, lake = tools.settings, tools.lake
    refuse_leaks_of_all(settings, lake)
    candidate = candidate_of(settings)
    trained = lake.read(DPO_CHECKPOINT, candidate.name).sort("seed")
    checkpoints = trained["checkpoint_id"].to_list()
    if not checkpoints:
        raise PromotionError(
            f"candidate {candidate.name} has no checkpoint; materialise dpo_checkpoint first"
        )
    for address in trained["checkpoint"].drop_nulls():
        refuse(seals_of_directory(lake, address), f"the training data of candidate {candidate.name}")
    path = settings.evaluation.promotion.sign_off or lake.local_path(FILE_NAME)
    signed = {f"sign-off {number}": each for number, each in enumerate(read_sign_offs(path), start=1)}

    def make(ids: Sequence[str]) -> StageRows:
        log = lake.read(PROMOTION_DECISION, WHOLE).select(PROMOTION_DECISION.schema.names())
        case = PromotionCase(settings, lake, candidate, checkpoints, incumbent_of(log))
        sign_off = next((each for each in reversed(signed.values()) if each.checkpoint in checkpoints), None)
        criteria = [*case.criteria(), _sign_off(candidate, sign_off, path)]
        decision = decide(criteria)
        criteria.append(_summary(criteria, decision))
        decided = {
            "number": 1 + max(log["number"], default=0),
            "candidate": candidate.name,
            "checkpoints": checkpoints,
            "release": ", ".join(trained["release"].drop_nulls().unique().sort()) or None,
            "scorecard": manifest.content_hash if (manifest := lake.manifest(SCORECARD.name)) else None,
            "incumbent": case.incumbent.system if case.incumbent else None,
            "incumbent_checkpoint": case.incumbent.checkpoint if case.incumbent else None,
            "decision": decision,
            "checkpoint": sign_off.checkpoint if sign_off else None,
            "signed_by": sign_off.name if sign_off else None,
            "signed_on": sign_off.date.isoformat() if sign_off else None,
            "evidence": keep_evidence(lake, case.measured, candidate),
            "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        rows = PROMOTION_DECISION.frame(_row(decided, place, each) for place, each in enumerate(criteria))
        outcomes = [(each, _OUTCOMES[decision], criteria[-1].reason) for each in checkpoints]
        outcomes += [(number, *_sign_off_outcome(each, checkpoints)) for number, each in signed.items()]
        return StageRows(pl.concat([log, rows]), outcomes, _info(decided, criteria))

    inputs = {
        "rows": _rows_hash(settings, lake, candidate),
        "checkpoints": content_id(*checkpoints),
        "sign_offs": content_id(*(each.model_dump_json() for each in signed.values())),
        "settings": settings_hash(
            settings.evaluation.promotion.model_dump(mode="json", exclude={"sign_off"}),
            candidate.name,
            settings.preferences.min_labelled_pairs,
            settings.preferences.min_pair_precision,
            settings.evaluation.benchmarks,
            settings.systems,
            settings.evaluation.bootstrap_draws,
            settings.seed,
        ),
    }
    return Plan(inputs, [*checkpoints, *signed], make)


def stage(settings: Settings) -> Stage:
    """The stage `promotion_decision`, which refuses the leaks of every benchmark of the settings."""
    looked_at = (
        JUDGE_VALIDATION.name, PAIR_VALIDATION.name, DESCRIPTIONS.name, BENCHMARK_RESPONSES.name,
        *READ_FOR_LEAKS,
        *settings.evaluation.benchmarks, SAFEVIDBENCH_BASE.name, SAFEVIDBENCH_CHALLENGE.name,
    )  # fmt: skip
    return Stage(
        PROMOTION_DECISION,
        "evaluation",
        "Whether the aligned policy replaces the one in use: bars, regressions, judges, sign-offs.",
        plan_promotion_decision,
        reads=tuple(dict.fromkeys((SCORECARD.name, DPO_CHECKPOINT.name, BENCHMARK_SCORES.name, *looked_at))),
        optional=frozenset(looked_at),
        watches=lambda settings: [settings.evaluation.promotion.sign_off or settings.root / FILE_NAME],
    )


def candidate_of(settings: Settings) -> System:
    """Return the system to decide about.

    It is `evaluation.promotion.candidate`, or else the first aligned policy at its largest data scale.

    Raises:
        PromotionError: If it is not an aligned policy, or if the settings align no policy.
    """
    name = settings.evaluation.promotion.candidate
    if name is not None:
        found = system_of(settings, name)
        if found.is_control or found.data_scale == 0:
            raise PromotionError(
                f"candidate {name} is no aligned policy; name one in evaluation.promotion.candidate"
            )
        return found
    aligned = [each for each in measured_systems(settings) if not each.is_control and each.data_scale > 0]
    if not aligned:
        raise PromotionError(
            "the settings align no policy, so there is none to promote; add one under alignment.policies"
        )
    first = [each for each in aligned if each.policy == aligned[0].policy]
    return max(first, key=lambda each: each.data_scale)


def incumbent_of(log: pl.DataFrame) -> Incumbent | None:
    """Return the system that a log promoted last. None if it promoted none."""
    promoted = log.filter((pl.col("criterion") == _DECISION) & (pl.col("decision") == "promoted"))
    if promoted.is_empty():
        return None
    last = promoted.sort("number").row(-1, named=True)
    return Incumbent(
        last["number"], last["candidate"], last["checkpoints"], last["checkpoint"], last["evidence"]
    )


def decide(criteria: Sequence[Criterion]) -> Decision:
    """Return the decision that follows from all criteria, with the sign-off."""
    missed = {each.name for each in criteria if each.met is False}
    if not missed:
        return "promoted"
    return "needs sign-off" if missed == {_SIGN_OFF} else "held"


def _sign_off(candidate: System, sign_off: SignOff | None, path: Path) -> Criterion:
    if sign_off is None:
        reason = f"no sign-off in {path.name} is for a checkpoint of {candidate.name}"
        return Criterion(_SIGN_OFF, None, None, None, False, reason)
    reason = f"{sign_off.name} on {sign_off.date.isoformat()} for checkpoint {sign_off.checkpoint}"
    note = f": {sign_off.note}" if sign_off.note else ""
    return Criterion(_SIGN_OFF, None, None, None, True, f"{reason}{note}")


def _sign_off_outcome(sign_off: SignOff, checkpoints: Sequence[str]) -> tuple[Outcome, str]:
    if sign_off.checkpoint in checkpoints:
        return "ok", ""
    return "filtered", f"is for checkpoint {sign_off.checkpoint}, which is none of the candidate's"


def _summary(criteria: Sequence[Criterion], decision: Decision) -> Criterion:
    missed = [
        f"{each.name} on {each.benchmark}" if each.benchmark else each.name
        for each in criteria
        if each.met is False
    ]
    reason = f"not met: {', '.join(missed)}" if missed else "every criterion that applies is met"
    return Criterion(_DECISION, None, None, None, decision == "promoted", f"{decision}; {reason}")


def _row(decided: dict[str, Any], place: int, criterion: Criterion) -> dict[str, Any]:
    return {
        **decided,
        # Tables are sorted by id, so this id puts the oldest decision first.
        "criterion_id": f"{decided['number']:06d}-{place:03d}",
        "benchmark": criterion.benchmark,
        "criterion": criterion.name,
        "threshold": criterion.threshold,
        "figure": criterion.figure,
        "met": criterion.met,
        "reason": criterion.reason,
    }


def _info(decided: dict[str, Any], criteria: Sequence[Criterion]) -> dict[str, Any]:
    """Return the decision for the manifest, without fields that are None."""
    names = ("number", "candidate", "decision", "incumbent", "signed_by", "signed_on")
    return {
        **{name: decided[name] for name in names if decided[name] is not None},
        "why": criteria[-1].reason,
        "calls": 0,
        "cached_calls": 0,
        "cost_usd": 0.0,
    }


def _rows_hash(settings: Settings, lake: Lake, candidate: System) -> str:
    """Return a hash of the table rows and of the judges that a decision depends on."""
    systems = dict.fromkeys((*settings.systems, candidate.name))
    benchmarks = settings.evaluation.benchmarks
    measurements = [f"{system}|{benchmark}" for system in systems for benchmark in benchmarks]
    read = [(name, WHOLE) for name in (*benchmarks, JUDGE_VALIDATION.name, PAIR_VALIDATION.name)]
    read += [(DESCRIPTIONS.name, scene) for scene in lake.partitions(DESCRIPTIONS.name)]
    read += [(table.name, each) for table in (BENCHMARK_RESPONSES, BENCHMARK_SCORES) for each in measurements]
    found = ((place, manifest) for place in read if (manifest := lake.manifest(*place)) is not None)
    return content_id(
        *(
            (place, manifest.content_hash, sorted(manifest.outcomes.items()), manifest.inputs.get("judges"))
            for place, manifest in found
        )
    )
