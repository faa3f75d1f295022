"""The dataset card of a release, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.markdown import markdown_table

_WHAT_A_ROW_IS = """\
## What a row is

`pairs.jsonl` holds one preference pair a line, as chat messages: `prompt` (a video and a query), `chosen`,
`rejected`, and `video`, the file, with `start_s` and `end_s`. A video path that is not absolute is relative
to the folder that SafeVid writes to. The chosen answer is written by a text model from a description of the
clip; the rejected one by an unaligned video model that was told to go along, or, where a full answer is
due, to refuse.

SafeVid's trainer reads these rows: `safevid_core.datasets.release.read_export` gives them as
`safevid_core.alignment.encoding.encode_pairs` takes them, and `dpo_checkpoint` trains on the same pairs in
the table `safevid_350k_release`. trl's own `DPOTrainer` (1.16) refuses them, because a prompt holds a part
for the video and it passes no videos to the processor."""


@dataclass(frozen=True)
class Lineage:
    """What a release came from.

    Attributes:
        models: Role -> models with their revisions.
        sources: Asset -> hash over the content hashes of its partitions.
        audit: What people say of the descriptions, in a sentence.
    """

    models: Mapping[str, list[str]]
    sources: Mapping[str, str]
    taxonomy_version: str
    taxonomy_hash: str
    taxonomy_source: str
    audit: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dataset_card(
    pairs: pl.DataFrame, licences: Mapping[str, str], lineage: Lineage, release: str, profile: str
) -> str:
    """The card of a release.

    Args:
        pairs: The rows of the release, without its id.
        licences: Clip id -> licence, of every clip with a pair.
    """
    sections = [
        _head(pairs, release, profile),
        _warnings(pairs, licences, profile),
        _WHAT_A_ROW_IS,
        "## Descriptions\n\n" + lineage.audit,
        "## Counts\n\n" + "\n\n".join(_counts(pairs, name) for name in ("principle", "subcategory", "scene")),
        "## Licences of the clips\n\n" + markdown_table(("licence", "clips"), _tally(licences.values())),
        "## Models\n\n" + markdown_table(("role", "model and revision"), _named(lineage.models)),
        "## Lineage\n\n"
        + markdown_table(("artifact", "content hash"), lineage.sources.items())
        + f"\n\nTaxonomy version {lineage.taxonomy_version}, hash `{lineage.taxonomy_hash}` "
        f"({lineage.taxonomy_source}).",
    ]
    return "\n\n".join(sections) + "\n"


def _head(pairs: pl.DataFrame, release: str, profile: str) -> str:
    from huggingface_hub import DatasetCardData

    about = DatasetCardData(language=["en"], tags=["preference", "video", "safety", "dpo"])
    return (
        f"---\n{about.to_yaml()}\n---\n\n"
        f"# SafeVid preference pairs, release {release}\n\n"
        f"Profile `{profile}`. {pairs.height} pairs about {pairs['clip_id'].n_unique()} clips in "
        f"{pairs['scene'].n_unique()} scenes. Made by the method of SafeVid (arXiv 2505.11926)."
    )


def _warnings(pairs: pl.DataFrame, licences: Mapping[str, str], profile: str) -> str:
    warnings = [
        "Rejected answers are unsafe or unhelpful on purpose. Show them to nobody as advice.",
        "Chosen answers rest on descriptions made by models and may be wrong about a clip.",
        "Pairs were checked by plain string checks, and not by people.",
        "A clip's licence binds the pair that is about it.",
    ]
    if profile == "pocket":
        warnings.insert(
            0,
            "This is the pocket profile: rendered clips, tiny models, scripted teachers. "
            "It is not SafeVid-350K and must not be taken for it.",
        )
    unknown = sum(licence == "unknown" for licence in licences.values())
    if unknown:
        warnings.append(f"{unknown} clips have no known licence; do not pass their pairs on.")
    if pairs.is_empty():
        warnings.append("This release is empty.")
    return "## Warnings\n\n" + "\n".join(f"- {warning}" for warning in warnings)


def _named(models: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(role, ", ".join(names) or "none") for role, names in models.items()]


def _counts(pairs: pl.DataFrame, name: str) -> str:
    return markdown_table((name, "pairs"), _tally(pairs[name].to_list()))


def _tally(values: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts.items())
