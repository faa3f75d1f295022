"""Shares of provider refusals by subcategory, and the check that warns of biased data.

Questions that a provider refused end `undecidable` with the reason `provider_refusal`. If one subcategory is
refused more often than others, the training data hold too little of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import polars as pl

from safevid_core.contracts.outcomes import OUTCOME_SCHEMA, Outcome
from safevid_core.models.llm import PROVIDER_REFUSAL
from safevid_core.stages.stage import Check, Finding, Stage, Tools

MOST_REFUSED = 0.2  # our value, not the paper's
_REFUSED = (pl.col("outcome") == "undecidable") & pl.col("reason").str.contains(PROVIDER_REFUSAL)


def refused_shares(
    outcomes: pl.DataFrame, subcategories: Mapping[str, str], most: float = MOST_REFUSED
) -> pl.DataFrame:
    """Return the share of refusals of each subcategory.

    Args:
        outcomes: Columns `input_id, outcome, reason`.
        subcategories: Input id -> its subcategory. Other ids are left out, because they belong to an older
            plan.
        most: Largest share, 0 to 1, that passes. Defaults to 0.2.

    Returns:
        One row for each subcategory, in descending order of the share: `subcategory, asked, refused, share,
        too_many`.
    """
    known = pl.DataFrame(
        {"input_id": list(subcategories), "subcategory": list(subcategories.values())},
        schema={"input_id": pl.String, "subcategory": pl.String},
    )
    return (
        outcomes.join(known, on="input_id")
        .group_by("subcategory")
        .agg(asked=pl.len().cast(pl.Int64), refused=_REFUSED.sum().cast(pl.Int64))
        .with_columns(share=pl.col("refused") / pl.col("asked"))
        .with_columns(too_many=pl.col("share") > most)
        .sort("share", "subcategory", descending=[True, False])
    )


def refusal_info(
    outcomes: Sequence[tuple[str, Outcome, str]], subcategories: Mapping[str, str]
) -> dict[str, dict[str, list[int]]]:
    """Return the entry `refusals` of a manifest: subcategory -> [asked, refused].

    The entry is empty if no question was refused.
    """
    frame = pl.DataFrame(list(outcomes), schema=OUTCOME_SCHEMA, orient="row")
    if frame.filter(_REFUSED).is_empty():
        return {"refusals": {}}
    shares = refused_shares(frame, subcategories).sort("subcategory")
    rows = shares.select("subcategory", "asked", "refused").iter_rows()
    return {"refusals": {subcategory: [asked, refused] for subcategory, asked, refused in rows}}


def _most_refused(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    """Return the finding over all committed partitions, with each loss counted separately."""
    asked: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for partition in tools.lake.partitions(stage.name):
        manifest = tools.lake.manifest(stage.name, partition)
        loss = stage.partitions.values(partition).get("loss", "")
        for subcategory, counts in (manifest.info.get("refusals", {}) if manifest else {}).items():
            total = asked[loss, subcategory]
            total[0] += counts[0]
            total[1] += counts[1]
    lines = [
        f"{f'{loss}, ' if loss else ''}{subcategory}: {refused} of {number} refused; ask another model, or "
        "name a `second`"
        for (loss, subcategory), (number, refused) in sorted(asked.items())
        if refused > MOST_REFUSED * number
    ]
    return Finding(tuple(lines), {"refused": sum(refused for _, refused in asked.values())})


FEW_REFUSALS = Check(
    "no_subcategory_is_refused",
    f"Providers refused no more than {MOST_REFUSED:.0%} of any subcategory, in all scenes.",
    _most_refused,
)
