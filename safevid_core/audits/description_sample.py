"""Draws the clips whose descriptions people check, and makes the rows of the sheet.

A row holds a claim or a whole text. Each scene has a share of the sample in proportion to its clips. Within a
scene, clips are drawn in the order of the hash of the seed and the clip id, so changes in one scene do not
change the order in another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from safevid_core.audits.audit_rows import with_clusters
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.rows import MediaSpan, rows_of
from safevid_core.contracts.tables import DESCRIPTIONS, candidate_table
from safevid_core.corpus.names import ClipNames
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake

RECONCILED = "reconciled"
CLAIM, TEXT = "claim", "text"

_COLUMNS = (
    "clip_id", "source_id", "scene", "twin_group", "media_sha256", "start_s", "end_s", "text", "claims",
    "dropped", "agreement", "coverage", "contradiction",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampledClip(MediaSpan):
    """A clip with its description.

    Attributes:
        cluster: Its twin group or source video; see :func:`~safevid_core.audits.audit_rows.with_clusters`.
        claims: JSON list of the kept claims.
        dropped: JSON list of the claims that were left out.
        file: The name of the clip's file for people.
    """

    clip_id: str
    cluster: str
    scene: str
    text: str | None
    claims: str | None
    dropped: str | None
    agreement: float | None
    coverage: float | None
    contradiction: float | None
    file: str


@dataclass(frozen=True)
class SheetRow:
    """One row of the sheet.

    Attributes:
        kind: `claim` or `text`.
        speakers: For a claim, the describers that assert it, and `reconciled` if it was kept. For a text, the
            describer that wrote it, or `reconciled`.
        signal: The signal describer's stance on a claim: `confirms`, `refutes` or `silent`. None if it
            was not asked.
    """

    row_id: str
    clip: SampledClip
    kind: str
    speakers: tuple[str, ...]
    text: str
    signal: str | None = None


@dataclass(frozen=True)
class DescriptionSample:
    """The sampled clips, in the order of scene and clip id, and their rows.

    Attributes:
        rows: The rows of the sheet.
    """

    clips: list[SampledClip]
    rows: list[SheetRow]

    @cached_property
    def name(self) -> str:
        """Id of the sample. It stays the same as long as clips, texts and claims are the same."""
        return content_id("description sample", *sorted(row.row_id for row in self.rows), length=12)


def draw_sample(settings: Settings, lake: Lake) -> DescriptionSample:
    """The sample that the settings ask for, drawn from all described clips."""
    described = lake.scan(DESCRIPTIONS).select(_COLUMNS).collect()
    drawn = _drawn(described, settings.descriptions.audit.sample, settings.seed)
    chosen = drawn["clip_id"].to_list()
    names = ClipNames(lake, chosen)
    files = [names(*clip) for clip in drawn.select("clip_id", "media_sha256").iter_rows()]
    clips = rows_of(with_clusters(drawn).with_columns(file=pl.Series(files, dtype=pl.String)), SampledClip)
    describers = tuple(settings.descriptions.describers)
    said: dict[str, dict[str, str]] = {RECONCILED: dict(drawn.select("clip_id", "text").iter_rows())}
    for name in describers:
        texts = lake.scan(candidate_table(name)).filter(pl.col("clip_id").is_in(chosen))
        said[name] = dict(texts.select("clip_id", "text").collect().iter_rows())
    rows = [row for clip in clips for row in _rows_of(clip, describers, said)]
    return DescriptionSample(clips, rows)


def _drawn(described: pl.DataFrame, size: int, seed: int) -> pl.DataFrame:
    """At most `size` clips. Each scene gives its share (largest remainders), in the order of the hashes."""
    counts = dict(described.group_by("scene").len().iter_rows())
    quota = shares_of(counts, min(size, described.height))
    chosen: list[str] = []
    for scene, most in quota.items():
        clips = described.filter(pl.col("scene") == scene)["clip_id"].to_list()
        chosen += sorted(clips, key=lambda clip: content_id("audit", seed, clip))[:most]
    return described.filter(pl.col("clip_id").is_in(chosen)).sort("scene", "clip_id")


def shares_of(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """`size` divided among strata in proportion to their counts, by largest remainders. Ties go by name.

    Example: counts `{"kitchen": 3, "street": 1}` and size 2 give `{"kitchen": 2, "street": 0}`.
    """
    total = sum(counts.values())
    exact = {name: size * count / total for name, count in counts.items()} if total else {}
    quota = {name: int(share) for name, share in exact.items()}
    left = sorted(exact, key=lambda name: (quota[name] - exact[name], name))
    for name in left[: size - sum(quota.values())]:
        quota[name] += 1
    return quota


def _rows_of(
    clip: SampledClip, describers: Sequence[str], said: Mapping[str, Mapping[str, str]]
) -> list[SheetRow]:
    rows: dict[str, SheetRow] = {}
    for name in (RECONCILED, *describers):
        text = said[name].get(clip.clip_id)
        if text:
            row_id = content_id(TEXT, clip.clip_id, name, text)
            rows[row_id] = SheetRow(row_id, clip, TEXT, (name,), text)
    for claims, kept in ((clip.claims, True), (clip.dropped, False)):
        for claim in json.loads(claims or "[]"):
            by = [name for name in claim.get("asserted_by", ()) if name in describers]
            speakers = (RECONCILED, *by) if kept else tuple(by)
            if not speakers:
                continue
            row_id = content_id(CLAIM, clip.clip_id, claim["text"], speakers)
            rows[row_id] = SheetRow(row_id, clip, CLAIM, speakers, claim["text"], claim.get("signal"))
    return list(rows.values())
