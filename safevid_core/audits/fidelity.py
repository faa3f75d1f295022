"""The audit of descriptions: agreement of the witnesses on all clips, and verdicts of people on a sample.

Agreement cannot show a mistake that all witnesses make. So people check the claims and texts of a sample
against the frames. For each describer and for the reconciled text, the audit reports:

- how often a claim is false,
- how often a text leaves out a safety-relevant detail,
- how often a text is consistent.

It also reports how well the scores of agreement predict the share of true claims.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safevid_core.audits.audit_rows import Observation, count_row, figure_row, mean_of, with_clusters
from safevid_core.audits.description_review import (
    AuditSignature,
    Review,
    ReviewerVerdict,
    hand_out,
    read_review,
    read_signatures,
    review_folder,
    sheet_of,
)
from safevid_core.audits.description_sample import (
    CLAIM,
    RECONCILED,
    TEXT,
    DescriptionSample,
    SheetRow,
    draw_sample,
)
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.rows import rows_of
from safevid_core.contracts.tables import (
    CLIP_MANIFEST,
    DESCRIPTION_FIDELITY_AUDIT,
    DESCRIPTIONS,
    VIDEO_CORPUS,
)
from safevid_core.descriptions.audit_gate import MEASURES, described_clips
from safevid_core.settings import Settings
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import frame_hash, settings_hash

TABLE = DESCRIPTION_FIDELITY_AUDIT
HALLUCINATION = "hallucination rate"
_DRAWS = 1000
_MOST_PROBLEMS = 20
# Raised when the meaning of the audit's figures changes.
_VERSION = "2"


@dataclass(frozen=True, slots=True)
class _Described:
    """A clip with its description; `claims` and `dropped` are JSON lists."""

    clip_id: str
    cluster: str
    claims: str | None
    dropped: str | None
    witnesses: list[str] | None
    agreement: float | None
    coverage: float | None
    contradiction: float | None

    def claims_in(self, column: str) -> list[tuple[str, Mapping[str, Any]]]:
        """(unit, claim) for each claim in `claims` or `dropped`. The unit is an id of the claim."""
        claims = [each for each in json.loads(getattr(self, column) or "[]") if isinstance(each, dict)]
        return [(f"{self.clip_id} {column} {place}", claim) for place, claim in enumerate(claims)]


def plan_description_fidelity_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure agreement over the corpus, to write the sample's sheet, and to read people's verdicts.

    Raises:
        ReviewError: If a sheet or the sign-off file cannot be read.
    """
    settings, lake = tools.settings, tools.lake
    descriptions = described_clips(lake)
    ids = descriptions["clip_id"].to_list()
    describers = tuple(settings.descriptions.describers)
    sample = draw_sample(settings, lake)
    most = settings.descriptions.audit.max_hallucination

    def inputs() -> dict[str, str]:
        review, signature = _reviewed(settings, sample)
        return {
            "descriptions": frame_hash(descriptions),
            "describers": settings_hash(list(describers)),
            "sample": sample.name,
            "verdicts": "" if review is None else review.audit_id(sample),
            "problems": settings_hash([] if review is None else review.problems),
            "signature": "" if signature is None else settings_hash(signature),
            "threshold": str(most),
            "version": _VERSION,
        }

    def make(clip_ids: Sequence[str]) -> StageRows:
        if sample.rows:
            hand_out(settings, sample)
        review, signature = _reviewed(settings, sample)
        rows = [*_agreement_rows(rows_of(with_clusters(descriptions), _Described), describers)]
        info: dict[str, Any] = {"clips": descriptions.height, "passed": False}
        if review is not None:
            rows += _human_rows(sample, review, describers)
            info |= _state_of(sample, review, signature, rows, most)
        return StageRows(TABLE.frame(rows), sequence_outcomes(ids, "ok"), info)

    # A new sheet holds verdicts from earlier sheets. Verdicts are inputs, so the inputs are computed again
    # after the rows were made.
    return Plan(inputs(), ids, make, inputs_after_make=inputs)


def _reviewed(settings: Settings, sample: DescriptionSample) -> tuple[Review | None, AuditSignature | None]:
    """The review of the sample and the sign-off for it. Both are None for an empty sample."""
    if not sample.rows:
        return None, None
    sheet = sheet_of(settings, sample)
    review = read_review(sheet, sample) if sheet.exists() else Review(sheet, open=len(sample.rows))
    return review, _signature(settings, sample, review)


def _signature(settings: Settings, sample: DescriptionSample, review: Review) -> AuditSignature | None:
    """The latest sign-off for these verdicts, or None."""
    audit = review.audit_id(sample)
    return next((each for each in reversed(read_signatures(settings)) if each.audit == audit), None)


def _state_of(
    sample: DescriptionSample,
    review: Review,
    signature: AuditSignature | None,
    rows: Iterable[Mapping[str, Any]],
    most: float,
) -> dict[str, Any]:
    """The state of the review for the record.

    It passes if every row has a verdict, the hallucination rate's upper bound is at most `most`, and the
    audit is signed.
    """
    rate = next(row for row in rows if (row["measure"], row["category"]) == (HALLUCINATION, RECONCILED))
    whole = review.open == 0 and not review.problems
    low_enough = rate["ci_high"] is not None and rate["ci_high"] <= most
    return {
        "sheet": str(review.sheet),
        "sampled_clips": len(sample.clips),
        "reviewed_rows": len(review.verdicts),
        "open_rows": review.open,
        "problems": review.problems[:_MOST_PROBLEMS],
        "audit": review.audit_id(sample),
        "signed_by": None if signature is None else f"{signature.name} on {signature.date}",
        "hallucination": {name: rate[name] for name in ("value", "ci_low", "ci_high", "n")},
        "max_hallucination": most,
        "passed": whole and low_enough and signature is not None,
    }


# ------------------------------------------------------------------------------ over the whole corpus


def _agreement_rows(clips: Sequence[_Described], describers: Sequence[str]) -> list[dict[str, Any]]:
    """Rows on agreement over all clips.

    They hold the means of the scores, the share of claims that all describers assert by kind, and, by
    witness and kind, the share of its assertions that were kept and of claims that it contradicts.
    """
    rows = []
    for name in MEASURES:
        scores = [(clip.clip_id, clip.cluster, getattr(clip, name)) for clip in clips]
        rows.append(figure_row(name, "all", mean_of(each for each in scores if each[2] is not None)))
    kept, contradicted = _stances(clips)
    for measure, found in (("assertions kept", kept), ("claims contradicted", contradicted)):
        rows += [
            figure_row(measure, f"{witness}: {kind}", mean_of(observations))
            for (witness, kind), observations in sorted(found.items())
        ]
    rows += [
        figure_row("asserted by all describers", kind, mean_of(observations))
        for kind, observations in sorted(_shared(clips, describers).items())
    ]
    alone = sum(not claim.get("asserted_by") for clip in clips for _, claim in clip.claims_in("claims"))
    return [*rows, count_row("kept claims that no witness asserts", "all", len(clips), alone)]


_Found = dict[tuple[str, str], list[Observation]]


def _stances(clips: Sequence[_Described]) -> tuple[_Found, _Found]:
    """Two mappings of (witness, kind) to observations.

    The first says of each assertion of the witness whether the claim was kept. The second says of each kept
    claim that it asserts or contradicts whether it contradicts the claim.
    """
    kept: _Found = defaultdict(list)
    contradicted: _Found = defaultdict(list)
    for clip in clips:
        cluster = clip.cluster
        for column, was_kept in (("claims", 1.0), ("dropped", 0.0)):
            for unit, claim in clip.claims_in(column):
                kind = str(claim.get("kind") or "other")
                for witness in claim.get("asserted_by", ()):
                    kept[witness, kind].append((unit, cluster, was_kept))
                if column == "claims":
                    against = set(claim.get("contradicted_by", ()))
                    for witness in against | set(claim.get("asserted_by", ())):
                        contradicted[witness, kind].append((unit, cluster, float(witness in against)))
    return kept, contradicted


def _shared(clips: Sequence[_Described], describers: Sequence[str]) -> dict[str, list[Observation]]:
    """Kind (and `all`) -> for each claim, whether all describers assert it.

    Clips that some describer did not describe are left out.
    """
    found: dict[str, list[Observation]] = defaultdict(list)
    for clip in clips:
        if not set(describers) <= set(clip.witnesses or ()):
            continue
        for column in ("claims", "dropped"):
            for unit, claim in clip.claims_in(column):
                observed = (unit, clip.cluster, float(set(describers) <= set(claim.get("asserted_by", ()))))
                found["all"].append(observed)
                found[str(claim.get("kind") or "other")].append(observed)
    return found


# --------------------------------------------------------------------------------- what people found


def _human_rows(sample: DescriptionSample, review: Review, describers: Sequence[str]) -> list[dict[str, Any]]:
    said = [(row, review.verdicts[row.row_id]) for row in sample.rows if row.row_id in review.verdicts]
    claims = [(row, verdict) for row, verdict in said if row.kind == CLAIM]
    texts = [(row, verdict) for row, verdict in said if row.kind == TEXT]
    rows = []
    for speaker in (RECONCILED, *describers):
        of_claims = [each for each in claims if speaker in each[0].speakers]
        of_texts = [each for each in texts if speaker in each[0].speakers]
        rows += [
            _share_row(HALLUCINATION, speaker, of_claims, "true", "no"),
            _share_row("safety-relevant detail omitted", speaker, of_texts, "complete", "no"),
            _share_row("consistent", speaker, of_texts, "consistent", "yes"),
        ]
    asserted = defaultdict(list)
    measured = defaultdict(list)
    for row, verdict in claims:
        asserted[f"asserted by {len(set(row.speakers) & set(describers))} describers"].append((row, verdict))
        measured[f"signal {row.signal or 'not asked'}"].append((row, verdict))
    for category, some in sorted(asserted.items()) + sorted(measured.items()):
        rows.append(_share_row("claims that are true", category, some, "true", "yes"))
    return [*rows, *_foretelling(sample, claims)]


_Reviewed = Sequence[tuple[SheetRow, ReviewerVerdict]]


def _share_row(measure: str, category: str, reviewed: _Reviewed, cell: str, counted: str) -> dict[str, Any]:
    """The share of rows with the verdict `counted` in a column, among rows whose verdict is not `unclear`."""
    known = [(row, verdict.entries[cell]) for row, verdict in reviewed if verdict.entries[cell] != "unclear"]
    figure = mean_of((row.row_id, row.clip.cluster, float(is_ == counted)) for row, is_ in known)
    unclear = len(reviewed) - len(known)
    return figure_row(measure, category, figure, f"{unclear} more are unclear" if unclear else "")


def _foretelling(sample: DescriptionSample, claims: _Reviewed) -> list[dict[str, Any]]:
    """Spearman's rank correlation over clips of each agreement score with the share of true kept claims."""
    true: dict[str, list[float]] = defaultdict(list)
    for row, verdict in claims:
        if RECONCILED in row.speakers and verdict.entries["true"] != "unclear":
            true[row.clip.clip_id].append(float(verdict.entries["true"] == "yes"))
    clips = [clip for clip in sample.clips if clip.clip_id in true]
    found = np.array([float(np.mean(true[clip.clip_id])) for clip in clips])
    rows = []
    for score in MEASURES:
        values = [getattr(clip, score) for clip in clips]
        known = [place for place, value in enumerate(values) if value is not None]
        scores = np.array([values[place] for place in known], dtype=float)
        rows.append(
            figure_row("foretells the share of true claims", score, rank_correlation(scores, found[known]))
        )
    return rows


def rank_correlation(first: np.ndarray, second: np.ndarray, draws: int = _DRAWS, seed: int = 0) -> Estimate:
    """Spearman's rank correlation with a percentile bootstrap over units.

    The value is None if there are fewer than 3 units or one side is constant.

    Args:
        first: Values, float `[N]`.
        second: Values of the same units, float `[N]`.
        draws: Bootstrap draws.
    """
    units = len(first)
    value = _spearman(first, second)
    if value is None:
        return Estimate(None, None, None, units, units)
    chosen = np.random.default_rng(seed).integers(0, units, (draws, units))
    drawn = [each for row in chosen if (each := _spearman(first[row], second[row])) is not None]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value), units, units)


def _spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def stage(settings: Settings) -> Stage:
    """The audit's stage. It reads the candidate descriptions of every describer of the settings."""
    return Stage(
        TABLE,
        "audits",
        "How far the describers agree, and what people say of a sample, for whom it writes a sheet.",
        plan_description_fidelity_audit,
        reads=(
            CLIP_MANIFEST.name,
            VIDEO_CORPUS.name,
            *settings.descriptions.candidate_tables,
            DESCRIPTIONS.name,
        ),
        optional=frozenset({CLIP_MANIFEST.name}),
        watches=lambda settings: [review_folder(settings)],
    )
