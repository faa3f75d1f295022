"""Descriptions that lose a detail on purpose, to measure what the detail is worth in pairs and in safety.

Each loss is an arm of its own: its descriptions, queries and pairs lie beside the method's, and a policy
whose `trained_on` names the loss is aligned on them. From there on it costs as many calls as the method.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from safevid_core.descriptions.reconciliation import make_descriptions
from safevid_core.lake import Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.models.llm import Gateway
from safevid_core.records import DESCRIPTIONS, Outcome, StageRows, candidate_table, lossy
from safevid_core.settings import LOSSES, Settings

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


class LossError(ValueError):
    """A loss that there is none of."""


def make_lossy_descriptions(
    settings: Settings, lake: Lake, loss: str, scene: str, gateway: Gateway
) -> StageReport:
    """The descriptions of a scene with one loss, in partition `<loss>|<scene>`.

    Whether the signals bear witness is decided before reconciliation, so these two losses reconcile again;
    the others change the text of what is there. `one_describer` is the first that the settings name.

    Raises:
        LossError: If there is no such loss.
    """
    if loss not in LOSSES:
        raise LossError(f"no loss {loss!r}; there are: {', '.join(LOSSES)}")
    track = lossy(loss)
    table, partition = track.descriptions, track.partition(scene)
    if loss in RECONCILED_AGAIN:
        witnesses = reconciled_by(settings, loss)
        return make_descriptions(witnesses, lake, scene, gateway, table=table, partition=partition)
    whole = lake.read(DESCRIPTIONS, scene).drop("profile")
    said = _said_instead(settings, lake, loss, scene, whole)

    def compute() -> StageRows:
        rows = [{**row, **said[row["clip_id"]]} for row in whole.to_dicts() if row["clip_id"] in said]
        outcomes: list[tuple[str, Outcome, str]] = [
            (clip_id, "ok", "") if clip_id in said else (clip_id, "filtered", f"{loss}: nothing is left")
            for clip_id in whole["clip_id"]
        ]
        before = dict(whole.select("clip_id", "text").iter_rows())
        changed = sum(row["text"] != before[row["clip_id"]] for row in rows)
        return StageRows(table.frame(rows), outcomes, {"calls": 0, "changed_texts": changed})

    inputs = {
        "descriptions": frame_hash(whole),
        "said": settings_hash(said),
        "loss": f"{loss}/{_VERSION}",
    }
    return run_stage(lake, table, partition, inputs, whole["clip_id"].to_list(), compute)


def reconciled_by(settings: Settings, loss: str) -> Settings:
    """The settings by which descriptions with a loss are reconciled; the method's own for no loss."""
    witness = {"signal_witness": RECONCILED_AGAIN[loss]} if loss else {}
    return settings.model_copy(update={"descriptions": settings.descriptions.model_copy(update=witness)})


def _said_instead(
    settings: Settings, lake: Lake, loss: str, scene: str, whole: pl.DataFrame
) -> dict[str, dict[str, Any]]:
    """Clip id -> the columns that differ; clips of which nothing is left are not among them."""
    if loss == "one_describer":
        first = next(iter(settings.descriptions.describers))
        said = lake.read(candidate_table(first), scene).select("clip_id", *_OF_A_CANDIDATE)
        alone = {"witnesses": [first], "claims": "[]", "dropped": "[]"}
        scores = dict.fromkeys(("agreement", "coverage", "contradiction"))
        described = set(whole["clip_id"])
        rows = {row.pop("clip_id"): {**row, **alone, **scores} for row in said.to_dicts()}
        return {clip_id: row for clip_id, row in rows.items() if clip_id in described}
    change = {"without_times": without_times, "first_sentence": first_sentence}[loss]
    texts = ((clip_id, change(text)) for clip_id, text in whole.select("clip_id", "text").iter_rows())
    return {clip_id: {"text": text} for clip_id, text in texts if text}


def first_sentence(text: str) -> str:
    """Up to the first full stop, question or exclamation mark that a new sentence follows."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def without_times(text: str) -> str:
    """The text without seconds, minutes and clock times, and the words that lead to them."""
    left = " ".join(_TIMES.sub("", text).split())
    left = re.sub(r" ([.,;!?])", r"\1", re.sub(r"(^|[.!?] )[,;] ?", r"\1", left))
    return re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), left)
