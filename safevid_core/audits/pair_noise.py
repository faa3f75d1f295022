"""A second judge on a sample of the pairs, to measure the noise of their labels.

The sample is drawn with equal probability and stratified by subcategory. The second judge gets the two
responses of a pair one at a time, in a seeded order and without the pair's label. So nothing tells it which
one is chosen. It cannot favour a place either, as judges do that compare two responses in one prompt (Wang et
al. 2023, arXiv 2305.17926). Each judge of the room `judging` can be used as it is.

Pairs with a label of people are asked about too, because the share of swapped labels is estimated from pairs
that both have seen. The figures are in :mod:`safevid_core.preferences.noise`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.audits.audit_rows import with_clusters
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import Pair, rows_of
from safevid_core.contracts.tables import PAIR_NOISE, PAIRS, VIDEO_CORPUS
from safevid_core.corpus.withdrawn import without_withdrawn
from safevid_core.datasets.imports import tables_of_release
from safevid_core.estimates.budget import BUDGET
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.panel import prompts_of
from safevid_core.models.teacher import spend_info
from safevid_core.preferences.noise import noise_of, preferred
from safevid_core.preferences.pair_judge import Assessment, judge_input, open_second_judge
from safevid_core.review.pairs import PairLabel, read_pair_labels
from safevid_core.settings import Settings
from safevid_core.stages.partitions import BY_SCENE, ONE_TABLE
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Stage, Tools
from safevid_core.statistics.sampling import stratified_sample, uniform
from safevid_core.storage.lake import Lake, frame_hash, settings_hash

_SIDES = ("chosen", "rejected")


def plan_pair_noise(tools: Tools, partition: str) -> Plan:
    """Plan to ask the second judge about a sample of the pairs. Nothing is asked if none is set.

    Raises:
        JudgeError: If the second judge cannot be opened, or is of the pair judge's family.
        ReviewError: If the file of labels cannot be read.
    """
    lake, settings, preferences = tools.lake, tools.settings, tools.settings.preferences
    judge = open_second_judge(preferences)
    if judge is None:
        return Plan({"second_judge": "none"}, [], lambda ids: StageRows(PAIR_NOISE.frame([]), [], {}))
    labels = read_pair_labels(preferences.labels)[0] if preferences.labels is not None else {}
    frame, drawn = _asked_about(lake, settings, labels)
    pairs = rows_of(frame, Pair)
    clusters = _clusters(lake, frame)
    firsts = [_first(settings.seed, pair.pair_id) for pair in pairs]

    def inputs_of_judge() -> list[JudgeInput]:
        return [
            judge_input(pair, getattr(pair, side), lake.media)
            for pair, first in zip(pairs, firsts, strict=True)
            for side in _shown(first)
        ]

    def make(pair_ids: Sequence[str]) -> StageRows:
        given = judge.assess(inputs_of_judge(), tools.gateway, PAIR_NOISE.name)
        rows: list[dict[str, Any]] = []
        outcomes: list[tuple[str, Outcome, str]] = []
        for pair, first, one, other in zip(pairs, firsts, given[::2], given[1::2], strict=True):
            sides = dict(zip(_shown(first), (one, other), strict=True))
            outcome, reason = _decided(sides)
            outcomes.append((pair.pair_id, outcome, reason))
            if outcome == "ok":
                label = labels.get(pair.pair_id)
                told = {
                    "cluster": clusters[pair.pair_id],
                    "sampled": pair.pair_id in drawn,
                    "first": first,
                    "people": label.told if label is not None else None,
                    "second_judge": judge.name,
                }
                rows.append(_row(pair, sides, told))
        table = PAIR_NOISE.frame(rows)
        missing = Counter(str(what) for pair, what, _ in outcomes if what != "ok" and pair in drawn)
        noise = noise_of(table, missing, judge.name, preferences.min_labelled_pairs)
        replies = [reply for each in given for reply in each.answers]
        info = {"second_judge": judge.name, "finding": noise.sentence, "noise": noise.as_dict()}
        return StageRows(table, outcomes, spend_info(replies) | info)

    inputs = {
        "pairs": frame_hash(frame),
        "sample": settings_hash(sorted(drawn), settings.seed, sorted(clusters.items())),
        "labels": settings_hash(sorted(labels.items()), preferences.min_labelled_pairs),
        "second_judge": judge.identity,
    }
    asked = judge.questions_about(inputs_of_judge(), lambda: tools.gateway)
    return Plan(inputs, [pair.pair_id for pair in pairs], make, asked)


def _asked_about(
    lake: Lake, settings: Settings, labels: dict[str, PairLabel]
) -> tuple[pl.DataFrame, frozenset[str]]:
    """The pairs of the sample and those with a label, by id, and the ids of the sample."""
    united = pl.concat(lake.scan(table).select(PAIRS.schema.names()) for table in tables_of_release(settings))
    known = without_withdrawn(lake, united.select("pair_id", "clip_id", "subcategory").collect())
    strata = dict(known.select("pair_id", pl.col("subcategory").fill_null("")).iter_rows())
    drawn = frozenset(
        stratified_sample(strata, settings.preferences.noise_sample, settings.seed, PAIR_NOISE.name)
    )
    asked = sorted(drawn | (labels.keys() & strata.keys()))
    return united.filter(pl.col("pair_id").is_in(asked)).sort("pair_id").collect(), drawn


def _clusters(lake: Lake, pairs: pl.DataFrame) -> dict[str, str]:
    """Pair id -> its source video, or its twin group."""
    sources = lake.scan(VIDEO_CORPUS).select("clip_id", "source_id").collect()
    clips = pairs.select("pair_id", "clip_id", "twin_group").join(sources, on="clip_id", how="left")
    return dict(with_clusters(clips).select("pair_id", "cluster").iter_rows())


def _first(seed: int, pair_id: str) -> str:
    """The response that is shown first."""
    return _SIDES[uniform("first response", seed, pair_id) < 0.5]


def _shown(first: str) -> tuple[str, ...]:
    return _SIDES if first == "chosen" else _SIDES[::-1]


def _decided(sides: dict[str, Assessment]) -> tuple[Outcome, str]:
    """Whether the second judge decided on both responses, and why not if it did not."""
    for side in _SIDES:
        why = sides[side].verdict.undecidable
        if why is not None:
            outcome: Outcome = "failed" if sides[side].failed else "undecidable"
            return outcome, f"second judge on the {side} response: {why}"
    return "ok", ""


def _row(pair: Pair, sides: dict[str, Assessment], told: dict[str, Any]) -> dict[str, Any]:
    chosen, rejected = sides["chosen"], sides["rejected"]
    keys = {
        f"{side}_request_key": given.answers[0].request_key if given.answers else None
        for side, given in sides.items()
    }
    return {
        "pair_id": pair.pair_id,
        "clip_id": pair.clip_id,
        "scene": pair.scene,
        "subcategory": pair.subcategory,
        "prefers": preferred(chosen, rejected),
        "chosen_success": chosen.verdict.success,
        "rejected_success": rejected.verdict.success,
        "chosen_score": chosen.score,
        "rejected_score": rejected.score,
        "chosen_verdict": chosen.verdict.reason,
        "rejected_verdict": rejected.verdict.reason,
        **keys,
        **told,
    }


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    preferences = tools.settings.preferences
    judge = open_second_judge(preferences)
    if judge is None:
        return Forecast(0)
    expected = sum(
        rows(table.name, partition)
        for table in tables_of_release(tools.settings)
        for partition in (BY_SCENE if table == PAIRS else ONE_TABLE).names(tools.settings)
    )
    asked = min(expected, preferences.noise_sample)
    return Forecast(asked, judge.questions(2 * asked))


def _files(settings: Settings) -> list[Path]:
    judges, labels = settings.preferences.second_judge or {}, settings.preferences.labels
    return [*prompts_of(judges.values()), *([] if labels is None else [labels])]


def stage(settings: Settings) -> Stage:
    """The stage `pair_noise`."""
    tables = tables_of_release(settings)
    return Stage(
        PAIR_NOISE,
        "preferences",
        "What a second judge says of a sample of the pairs: the noise of their labels.",
        plan_pair_noise,
        reads=(*(table.name for table in tables), VIDEO_CORPUS.name),
        forecast=_forecast,
        watches=_files,
        asks=True,
        gates=(BUDGET,),
    )
