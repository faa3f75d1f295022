"""The audit of style: how often a classifier finds the chosen response by its words or its length alone.

At 0.5 style does not separate the two responses. Near 1 a policy could learn the preference without the query
and the video. The control runs show whether it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from safevid_core.audits.audit_rows import audit_stage, figure_row, mean_of, with_clusters
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import RELEASE, VIDEO_CORPUS, audit_table
from safevid_core.preferences import style
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import frame_hash

TABLE = audit_table("preference_style_audit")
BY_WORDS = "chosen told by its words"
BY_LENGTH = "chosen told by its length"
_COLUMNS = ("pair_id", "clip_id", "twin_group", "expectation", "chosen", "rejected")


def plan_preference_style_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure the share of pairs whose chosen response is found by words or by length.

    The shares are over all pairs and by expectation.
    """
    lake = tools.lake
    pairs = lake.scan(RELEASE).select(_COLUMNS).sort("pair_id").collect()
    sources = lake.scan(VIDEO_CORPUS).select("clip_id", "source_id").sort("clip_id").collect()
    ids = pairs["pair_id"].to_list()

    def make(pair_ids: Sequence[str]) -> StageRows:
        rows = pairs.join(sources, on="clip_id", how="left", maintain_order="left")
        return StageRows(TABLE.frame(style_rows(rows)), sequence_outcomes(ids, "ok"), {"pairs": len(ids)})

    inputs = {"pairs": frame_hash(pairs), "sources": frame_hash(sources)}
    return Plan(inputs, ids, make)


def style_rows(pairs: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Audit rows of pairs with `pair_id, clip_id, source_id, twin_group, expectation, chosen, rejected`."""
    pairs = with_clusters(pairs)
    groups, chosen, rejected = (pairs[name].to_list() for name in ("cluster", "chosen", "rejected"))
    vocabulary = style.vocabulary_of([*chosen, *rejected])
    words = style.bag_of_words(chosen, vocabulary) - style.bag_of_words(rejected, vocabulary)
    telling = ["", ""]
    if pairs.height:
        telling = [", ".join(some) for some in style.most_telling(style.fit(words), vocabulary)]
    found = (
        (BY_WORDS, words, f"for chosen: {telling[0]}; for rejected: {telling[1]}"),
        (BY_LENGTH, style.length(chosen) - style.length(rejected), ""),
    )
    for measure, differences, detail in found:
        found_chosen = style.told_apart(differences, groups)
        if found_chosen is None:
            continue
        rows = pairs.select("expectation", "cluster", unit="pair_id", value=pl.Series(found_chosen))
        seen = rows.select("unit", "cluster", "value").iter_rows()
        yield figure_row(measure, "all", mean_of(seen), detail)
        for (expectation,), some in sorted(rows.group_by("expectation"), key=lambda group: str(group[0])):
            seen = some.select("unit", "cluster", "value").iter_rows()
            yield figure_row(measure, str(expectation), mean_of(seen))


STAGE = audit_stage(
    TABLE,
    "How often a chosen response is told from the rejected one by its words or its length alone.",
    plan_preference_style_audit,
    (RELEASE.name, VIDEO_CORPUS.name),
)
