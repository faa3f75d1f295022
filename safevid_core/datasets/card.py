"""The dataset card of a release, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.markdown import markdown_table
from safevid_core.datasets.citation import how_to_cite
from safevid_core.datasets.decontamination import NO_BENCHMARK_ITEMS
from safevid_core.datasets.near_duplicates import RECALL
from safevid_core.datasets.release_folder import ReleaseRecord
from safevid_core.datasets.screening import Screening
from safevid_core.datasets.writers import Writer, who_wrote_what
from safevid_core.preferences.calibration import Calibration
from safevid_core.preferences.noise import PairNoise, lines_of
from safevid_core.statistics.agreement import Figure

_WHAT_A_ROW_IS = """\
## What a row is

Each row of the Parquet files in `train/` and `validation/` is one preference pair. `prompt` is a query about
a video, `chosen` and `rejected` are the two responses. `media_sha256` is the SHA-256 of the video's file,
`source_id` names the source video, and the clip is the span from `start_s` to `end_s` in seconds. The release
holds no video and no path. All pairs about one source video, its near-duplicates and its twins are in one
split, and no later release moves them to the other.

A text model wrote the chosen response from a description of the clip, the `policy` of the query's subcategory
and the `criteria` of the query. An unaligned video model that saw the clip wrote the rejected response. All
`criteria` are true of a safe response. `chosen_score` and `rejected_score` are the shares of the criteria
that the pair judge finds met, and `margin` is their difference. `flags` names the patterns that match a pair.
No pair was kept or dropped because of a pattern.

`release.json` has the version, the SHA-256 of each file, and hashes of the policies. `kept_out.parquet` names
the pairs that were kept out, with reasons. `safevid_core.datasets.release_folder.read_pairs` reads the rows.
`dpo_checkpoint` trains on the same pairs in the table `safevid_350k_release`. `safevid export pairs` writes
them for other tools."""


@dataclass(frozen=True)
class Lineage:
    """The sources of a release.

    Attributes:
        models: Role -> models with their revisions.
        sources: Asset -> hash over the content hashes of its partitions.
        audit: The result of the audit of the descriptions, in a sentence.
        writers: How the models are asked, by the settings.
    """

    models: Mapping[str, list[str]]
    sources: Mapping[str, str]
    taxonomy_version: str
    taxonomy_hash: str
    taxonomy_source: str
    audit: str
    writers: tuple[Writer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dataset_card(
    pairs: pl.DataFrame,
    licences: Mapping[str, str],
    lineage: Lineage,
    calibration: Calibration,
    screening: Screening,
    noise: PairNoise,
    statistics: str,
    record: ReleaseRecord,
) -> str:
    """The card of a release.

    Args:
        pairs: The rows of the release.
        licences: Clip id -> licence, for every clip with a pair.
        calibration: The calibration of the pair judge by people's labels.
        screening: What was kept out of the release.
        noise: What the second judge says of a sample of the pairs.
        statistics: The section of the pair statistics, without its head.
        record: Id, version and shards of the release.
    """
    sections = [
        _head(pairs, record, calibration),
        _warnings(pairs, licences, lineage, record.profile),
        _WHAT_A_ROW_IS,
        "## Splits\n\n" + _splits(record),
        "## Descriptions\n\n" + lineage.audit,
        "## Pair judge\n\n" + _pair_judge(pairs, calibration),
        "## Label noise\n\n" + _noise(noise),
        "## Duplicates and benchmarks\n\n" + _screening(screening),
        "## How the rejected responses were asked for\n\n" + _rejected(pairs),
        "## Statistics\n\n" + statistics,
        "## Counts\n\n" + "\n\n".join(_counts(pairs, name) for name in ("principle", "subcategory", "scene")),
        "## Licences of the clips\n\n" + markdown_table(("licence", "clips"), _tally(licences.values())),
        "## Who wrote what\n\n" + who_wrote_what(lineage.models, lineage.writers),
        "## Lineage\n\n"
        + markdown_table(("artifact", "content hash"), lineage.sources.items())
        + f"\n\nTaxonomy version {lineage.taxonomy_version}, hash `{lineage.taxonomy_hash}` "
        f"({lineage.taxonomy_source}).",
        "## How to cite\n\n" + how_to_cite(record.release, record.profile, pairs.height),
    ]
    return "\n\n".join(sections) + "\n"


def front_matter() -> str:
    """The metadata at the head of every `README.md` of a release, which Hugging Face reads."""
    from huggingface_hub import DatasetCardData

    about = DatasetCardData(language=["en"], tags=["preference", "video", "safety", "dpo"])
    return f"---\n{about.to_yaml()}\n---\n\n"


def _head(pairs: pl.DataFrame, record: ReleaseRecord, calibration: Calibration) -> str:
    mark = "" if calibration.calibrated else " (UNCALIBRATED)"
    return (
        f"{front_matter()}# SafeVid preference pairs, version {record.version}{mark}\n\n"
        f"Release `{record.release}`, {_after(record)}. Profile `{record.profile}`. {pairs.height} pairs "
        f"about {pairs['clip_id'].n_unique()} clips in {pairs['scene'].n_unique()} "
        "scenes. Made by the method of SafeVid (arXiv 2505.11926)."
    )


def _after(record: ReleaseRecord) -> str:
    return "the first" if record.parent is None else f"after version {record.parent}"


def _splits(record: ReleaseRecord) -> str:
    pairs: dict[str, int] = {}
    for shard in record.shards:
        pairs[shard.split] = pairs.get(shard.split, 0) + shard.pairs
    share = (
        f"A hash of the video puts {record.validation_share:.0%} of the source videos into `validation`."
        if record.validation_share
        else "All pairs are in `train`: the setting `datasets.validation_share` is 0."
    )
    return share + "\n\n" + markdown_table(("split", "pairs"), pairs.items())


def _warnings(pairs: pl.DataFrame, licences: Mapping[str, str], lineage: Lineage, profile: str) -> str:
    warnings = [
        "Rejected responses are unsafe or unhelpful on purpose. Show them to nobody as advice.",
        "Chosen responses are based on descriptions by models and may be wrong about a clip.",
        "A model decided which pairs were kept. See the section on the pair judge.",
        "The licence of a clip applies to its pairs.",
    ]
    if profile == "pocket":
        warnings.insert(
            0,
            "This release was made with the pocket profile: rendered clips, small models, scripted teachers. "
            "It is not SafeVid-350K.",
        )
    scripted = [role for role, names in lineage.models.items() if any("scripted/" in name for name in names)]
    if scripted:
        warnings.insert(0, f"Scripted, and no language model: {', '.join(scripted)}.")
    unknown = sum(licence == "unknown" for licence in licences.values())
    if unknown:
        warnings.append(f"{unknown} clips have no known licence. Do not distribute their pairs.")
    if pairs.is_empty():
        warnings.append("This release is empty.")
    return "## Warnings\n\n" + "\n".join(f"- {warning}" for warning in warnings)


def _pair_judge(pairs: pl.DataFrame, calibration: Calibration) -> str:
    judges = ", ".join(pairs["pair_judge"].unique().sort().to_list()) or "none"
    sentence = calibration.sentence
    flags = _tally(pairs["flags"].explode().drop_nulls().to_list())
    told = [
        f"Judge: {judges}. {sentence[:1].upper()}{sentence[1:]}. "
        f"The setting `preferences.min_pair_precision` is {calibration.min_precision:g}, "
        f"`preferences.min_labelled_pairs` is {calibration.min_labelled}.",
        markdown_table(("flag", "pairs"), flags) if flags else "No pair has a flag.",
    ]
    return "\n\n".join(told)


def _noise(noise: PairNoise) -> str:
    sentence = f"{noise.sentence[:1].upper()}{noise.sentence[1:]}."
    if not noise.measured:
        return sentence
    missing = ", ".join(f"{number} {outcome}" for outcome, number in noise.no_verdict.items()) or "none"
    return "\n\n".join(
        [
            f"Second judge: {noise.second_judge}. It judged each response of {noise.sampled} pairs alone and "
            "was not told which one is chosen. The pairs were drawn from all kept pairs with equal "
            "probability, stratified by subcategory. "
            f"It prefers the chosen response of {noise.same} pairs, the rejected one of {noise.swapped} and "
            f"neither of {noise.neither}. Pairs without a verdict: {missing}.",
            markdown_table(
                ("figure", "value", "95% interval", "n"), [_figure(*line) for line in lines_of(noise)]
            ),
            sentence,
            "Both alphas are over kept pairs only: the pair judge's verdicts on the pairs that it dropped "
            "are not compared. The intervals are over source videos.",
        ]
    )


def _figure(name: str, figure: Figure) -> tuple[str, str, str, str]:
    if figure.value is None:
        return name, "not estimated", "", str(figure.n)
    return name, f"{figure.value:.3f}", f"{figure.ci_low:.3f} to {figure.ci_high:.3f}", str(figure.n)


def _screening(screening: Screening) -> str:
    kept_out = sorted(screening.counts.items())
    texts = [
        (each.text, each.count, each.distinct, each.groups, each.repeated, each.largest)
        for each in screening.texts
    ]
    return "\n\n".join(
        [
            "Two texts are near-duplicates if their negations and numbers are the same and the Jaccard "
            f"similarity of their three-word sequences is at least {screening.threshold:g}. A pair of texts "
            f"at that similarity is found with a probability of at least {RECALL:.0%}. Each found pair was "
            "compared exactly.",
            markdown_table(("why a pair was kept out", "pairs"), kept_out)
            if kept_out
            else "No pair was kept out.",
            markdown_table(
                (
                    "text",
                    "texts",
                    "distinct",
                    "groups of near-duplicates",
                    "beyond the first",
                    "largest group",
                ),
                texts,
            ),
            f"The blocking check `{NO_BENCHMARK_ITEMS.name}` compares videos and queries with every "
            "benchmark that is installed.",
        ]
    )


def _rejected(pairs: pl.DataFrame) -> str:
    prompts = ["no system prompt" if each is None else f"`{each}`" for each in pairs["rejected_system"]]
    return markdown_table(("system prompt of the unaligned model", "pairs"), _tally(prompts))


def _counts(pairs: pl.DataFrame, name: str) -> str:
    return markdown_table((name, "pairs"), _tally(pairs[name].to_list()))


def _tally(values: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts.items())
