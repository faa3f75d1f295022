"""Makes descriptions that lack a detail, to measure what the detail is worth in pairs and in safety.

Each loss is a control run. Its descriptions, queries and pairs have tables of their own. A policy whose
`trained_on` names the loss is aligned on them. A loss costs as many calls as the method from the queries on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    LOSSY_DESCRIPTIONS,
    SIGNAL_DESCRIPTIONS,
    candidate_table,
    lossy,
)
from safevid_core.descriptions.reconciliation import (
    forecast_descriptions,
    plan_reconciliation,
)
from safevid_core.descriptions.tracks import trained_losses
from safevid_core.estimates.budget import BUDGET
from safevid_core.settings import LOSSES, Settings
from safevid_core.stages.partitions import BY_LOSS_AND_SCENE
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash

# Raised when a loss takes something else away from the same texts.
_VERSION = "1"
# Whether the signals bear witness.
RECONCILED_AGAIN: Mapping[str, bool] = {"with_signal": True, "without_signal": False}

_NUMBER = r"(?:\d+(?:\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty)"
# "the 90s" is no time of a clip, and "a second man" is no second.
_UNIT = r"(?: ?(?<!the \d\d)s\b(?!-)|[- ](?:secs?|seconds?|mins?|minutes?)\b(?!-))"
_TIME = rf"(?:\d{{1,2}}:\d{{2}}(?::\d{{2}})?|{_NUMBER}{_UNIT})"
_TIMES = re.compile(
    r",? ?[(\[]?\b(?:(?:at|from|until|till|after|before|between|for|in|within|during|over) )?"
    rf"(?:(?:the|about|around|roughly|first|last) )*(?:(?:{_TIME}|{_NUMBER})(?: ?[-–] ?| to | and | until ))?"
    rf"{_TIME}(?: marks?\b| later\b| in\b)?[)\]]?",
    re.IGNORECASE,
)
_OF_A_CANDIDATE = ("text", "model", "revision", "request_key")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")


class LossError(SafeVidError, ValueError):
    """A loss that there is none of."""


def plan_lossy_descriptions(tools: Tools, partition: str) -> Plan:
    """Plan the descriptions of a scene with one loss, in partition `<loss>|<scene>`.

    Whether the signals bear witness is decided before reconciliation, so these two losses reconcile again;
    the others change the text of what is there. `one_describer` is the first that the settings name.

    Raises:
        LossError: If there is no such loss.
    """
    lake, (loss, scene) = tools.lake, BY_LOSS_AND_SCENE.values(partition).values()
    if loss not in LOSSES:
        raise LossError(f"no loss {loss!r}; there are: {', '.join(LOSSES)}")
    table = lossy(loss).descriptions
    if loss in RECONCILED_AGAIN:
        return plan_reconciliation(tools, reconciled_by(tools.settings, loss), scene, table)
    whole = lake.read(DESCRIPTIONS, scene).drop("profile")
    said = _said_instead(tools.settings, lake, loss, whole, scene)

    def make(clip_ids: Sequence[str]) -> StageRows:
        rows = whole.drop(said.columns[1:]).join(said, on="clip_id", maintain_order="left")
        kept = set(rows["clip_id"])
        outcomes: list[tuple[str, Outcome, str]] = [
            (clip_id, "ok", "") if clip_id in kept else (clip_id, "filtered", f"{loss}: nothing is left")
            for clip_id in whole["clip_id"]
        ]
        before = rows.join(whole, on="clip_id", how="left", maintain_order="left")["text_right"]
        info = {"calls": 0, "changed_texts": int(rows["text"].ne_missing(before).sum())}
        return StageRows(rows.select(table.schema.names()).cast(table.schema), outcomes, info)

    inputs = {
        "descriptions": frame_hash(whole),
        "said": frame_hash(said),
        "loss": f"{loss}/{_VERSION}",
    }
    return Plan(inputs, whole["clip_id"].to_list(), make)


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    loss, scene = BY_LOSS_AND_SCENE.values(partition).values()
    if loss in RECONCILED_AGAIN:
        return forecast_descriptions(tools, scene, rows)
    return Forecast(rows(DESCRIPTIONS.name, scene))


def stage(settings: Settings) -> Stage:
    """The stage `lossy_descriptions`; the flow makes the losses that a policy of the settings trains on."""
    return Stage(
        LOSSY_DESCRIPTIONS,
        "descriptions",
        "Descriptions that lose a detail on purpose: for ablations.",
        plan_lossy_descriptions,
        reads=(
            "video_corpus",
            *settings.descriptions.candidate_tables,
            SIGNAL_DESCRIPTIONS.name,
            DESCRIPTIONS.name,
        ),
        partitions=BY_LOSS_AND_SCENE,
        wanted=trained_losses,
        forecast=_forecast,
        asks=True,
        gates=(BUDGET,),
    )


def reconciled_by(settings: Settings, loss: str) -> Settings:
    """The settings by which descriptions with a loss are reconciled; the method's own for no loss."""
    witness = {"signal_witness": RECONCILED_AGAIN[loss]} if loss else {}
    return settings.model_copy(update={"descriptions": settings.descriptions.model_copy(update=witness)})


def _said_instead(settings: Settings, lake: Lake, loss: str, whole: pl.DataFrame, scene: str) -> pl.DataFrame:
    """The columns that differ, after `clip_id`. Clips of which nothing is left have no row."""
    if loss == "one_describer":
        first = next(iter(settings.descriptions.describers))
        said = lake.read(candidate_table(first), scene).select("clip_id", *_OF_A_CANDIDATE)
        return said.join(whole, on="clip_id", how="semi", maintain_order="left").with_columns(
            pl.lit([first]).alias("witnesses"),
            pl.lit("[]").alias("claims"),
            pl.lit("[]").alias("dropped"),
            *(pl.lit(None, pl.Float64).alias(score) for score in ("agreement", "coverage", "contradiction")),
        )
    change = {"without_times": without_times, "first_sentence": first_sentence}[loss]
    texts = pl.Series("text", [change(text) for text in whole["text"]], pl.String)
    return whole.select("clip_id", texts).filter(pl.col("text") != "")


def first_sentence(text: str) -> str:
    """Up to the first full stop, question or exclamation mark that a new sentence follows."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def without_times(text: str) -> str:
    """The text without seconds, minutes and clock times, and the words that lead to them."""
    left = " ".join(_TIMES.sub("", text).split())
    left = re.sub(r" ([.,;!?])", r"\1", re.sub(r"(^|[.!?] )[,;] ?", r"\1", left))
    return re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), left)
