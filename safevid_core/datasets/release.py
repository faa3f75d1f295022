"""Makes the release: the pairs of all scenes as one immutable set with content hash, card and export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import Pair, rows_of
from safevid_core.contracts.tables import (
    DESCRIPTION_FIDELITY_AUDIT,
    DESCRIPTIONS,
    PAIR_VALIDATION,
    PAIRS,
    RELEASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    Table,
    candidate_table,
)
from safevid_core.corpus.withdrawn import without_withdrawn
from safevid_core.datasets.card import Lineage, dataset_card
from safevid_core.datasets.decontamination import (
    NO_BENCHMARK_ITEMS,
    benchmark_hits,
    benchmarks_in,
    named_benchmarks,
    read_items,
)
from safevid_core.datasets.imports import tables_of_release
from safevid_core.datasets.screening import SCREENING_VERSION, Screening, screen
from safevid_core.models.teacher import spend_info
from safevid_core.preferences.calibration import read_calibration
from safevid_core.settings import Settings
from safevid_core.stages.gates import covers
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash
from safevid_core.storage.media import MediaIndex
from safevid_core.storage.seals import refuse_sealed_folder
from safevid_core.taxonomy.taxonomy import load_taxonomy

# Raised when the export or the card changes for the same pairs.
_EXPORT_VERSION = "6"
# Settings of the allocation, on which a release does not depend.
_OF_THE_PLAN = {"target_pairs", "allocation", "shortage"}


def plan_dataset_release(tools: Tools, partition: str) -> Plan:
    """Plan to unite the pairs of all scenes, and to write `pairs.jsonl` and `README.md` into a folder.

    Duplicates are kept out. `datasets.contaminated: keep_out` keeps out pairs that repeat a benchmark, too.
    `info["path"]` is the folder, relative to the lake's root. `info["release"]` is the id of the release.
    """
    settings, lake = tools.settings, tools.lake
    datasets, tables = settings.datasets, tables_of_release(settings)
    united = pl.concat(lake.scan(table).select(PAIRS.schema.names()) for table in tables)
    made = without_withdrawn(lake, united.sort("pair_id").collect())
    items = read_items(lake, benchmarks_in(lake, settings)) if datasets.contaminated == "keep_out" else None
    licences = _licences(lake, made)
    lineage = _lineage(settings, lake, made)
    calibration = read_calibration(lake, settings.preferences)
    ids = made["pair_id"].to_list()

    def make(pair_ids: Sequence[str]) -> StageRows:
        hits = None if items is None else benchmark_hits(lake, made, items, datasets.near_duplicate)
        screening = screen(made, datasets, hits)
        pairs = made.filter(~pl.col("pair_id").is_in(list(screening.kept_out)))
        release = release_id(pairs)
        shown = {clip: licences[clip] for clip in sorted(set(pairs["clip_id"].to_list()))}
        with lake.new_directory("release") as folder:
            _write_jsonl(folder / "pairs.jsonl", pairs, shown, lake.media, release)
            card = dataset_card(pairs, shown, lineage, calibration, screening, release, settings.profile)
            (folder / "README.md").write_text(card, encoding="utf-8")
            path = lake.keep("release", folder)
        info = {
            "release": release,
            "path": path,
            "pairs": pairs.height,
            "calibrated": calibration.calibrated,
            "calibration": calibration.sentence,
            "kept_out": screening.counts,
            **spend_info([]),
            **_counts(pairs),
        }
        rows = pairs.with_columns(pl.lit(release).alias("release"))
        return StageRows(rows, _outcomes(ids, screening), info)

    inputs = {
        "pairs": frame_hash(made),
        "licences": settings_hash(licences),
        "lineage": settings_hash(lineage.as_dict()),
        "calibration": settings_hash(asdict(calibration)),
        "screening": settings_hash(datasets.model_dump(exclude=_OF_THE_PLAN), SCREENING_VERSION),
        "export": _EXPORT_VERSION,
        **({} if items is None else {"benchmarks": frame_hash(items)}),
    }
    return Plan(inputs, ids, make)


def _outcomes(ids: Sequence[str], screening: Screening) -> list[tuple[str, Outcome, str]]:
    out = screening.kept_out
    return [(pair, "filtered", out[pair]) if pair in out else (pair, "ok", "") for pair in ids]


def stage(settings: Settings) -> Stage:
    """The stage `safevid_350k_release`."""
    tables = tables_of_release(settings)
    compared = named_benchmarks(settings) if settings.datasets.contaminated == "keep_out" else ()
    made_here = (
        TAXONOMY_QUERIES.name,
        DESCRIPTIONS.name,
        *settings.descriptions.candidate_tables,
        PAIR_VALIDATION.name,
        DESCRIPTION_FIDELITY_AUDIT.name,
    )
    # A release of imported pairs alone needs nothing that a teacher model made.
    optional = made_here if PAIRS not in tables else (DESCRIPTION_FIDELITY_AUDIT.name,)
    return Stage(
        RELEASE,
        "preferences",
        "The pairs of all scenes without duplicates as one release, with card and export. Its id is a hash.",
        plan_dataset_release,
        reads=(*(table.name for table in tables), VIDEO_CORPUS.name, *made_here, *compared),
        optional=frozenset({*optional, *compared}),
        forecast=lambda tools, partition, rows: Forecast(
            sum(rows(PAIRS.name, scene) for scene in BY_SCENE.names(tools.settings))
        ),
        checks=(*((covers(PAIRS.name),) if PAIRS in tables else ()), NO_BENCHMARK_ITEMS),
    )


def release_id(pairs: pl.DataFrame) -> str:
    """Hex id of a set of pairs: a hash of their content. It does not depend on the paths of the videos."""
    return content_id("release", frame_hash(pairs.sort("pair_id")))


def chat_row(pair: Pair, licence: str, video: str | None, release: str) -> dict[str, Any]:
    """One pair as chat messages, with its video. :func:`read_export` reads it back.

    Args:
        video: Path of the file, from :meth:`~safevid_core.storage.media.MediaIndex.for_export`. A path below
            the lake's root is relative to it. None if the pair has no video.
    """
    content = [{"type": "video"}, {"type": "text", "text": pair.prompt}]
    return {
        "prompt": [{"role": "user", "content": content}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": pair.chosen}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": pair.rejected}]}],
        "video": video,
        "licence": licence,
        "release": release,
        **{
            name: getattr(pair, name)
            for name in (
                "pair_id", "query_id", "clip_id", "media_sha256", "start_s", "end_s", "twin_group", "scene",
                "principle", "dimension", "subcategory", "style", *INTENT_COLUMNS, "policy", "satisfies",
                "chosen_score", "rejected_score", "margin", "chosen_verdict", "rejected_verdict", "flags",
                "pair_judge", "chosen_model", "rejected_model", "rejected_system", "taxonomy_hash",
            )
        },
    }  # fmt: skip


def read_export(path: Path, root: Path) -> pl.DataFrame:
    """Read the pairs of a `pairs.jsonl` for :func:`~safevid_core.alignment.encoding.encode_pairs`.

    Request keys are null, because the export does not hold them.

    Args:
        path: The file.
        root: The folder to which a relative `video` is relative.

    Returns:
        The columns of `safevid_350k_release`, and `path`: the path of the video.

    Raises:
        ValueError: If a line is not a pair of a release. The message names the line.
        WithdrawnError: If a seal beside its folder names pairs of withdrawn clips.
    """
    refuse_sealed_folder(path.absolute().parent, f"release {path.parent}")
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(_pair(json.loads(line), root))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {number}: not a pair of an exported release "
                    f"({type(error).__name__}: {error}); fix the line or leave it out"
                ) from error
    places = [row.pop("path") for row in rows]
    return RELEASE.frame(rows).with_columns(pl.Series("path", places, dtype=pl.String))


def _pair(row: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The row of the release from which :func:`chat_row` made a line."""
    video = row["video"]
    kept = {name: row[name] for name in RELEASE.schema.names() if name in row}
    turns = {name: _text(row[name]) for name in ("prompt", "chosen", "rejected")}
    return {**kept, **turns, "pair_id": row["pair_id"], "path": None if video is None else str(root / video)}


def _text(turns: Sequence[Mapping[str, Any]]) -> str:
    """The text of the only turn, which may also hold a video."""
    texts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    if len(turns) != 1 or len(texts) != 1 or not isinstance(texts[0], str):
        raise ValueError("not one turn with one text")
    return texts[0]


def _write_jsonl(
    path: Path, pairs: pl.DataFrame, licences: Mapping[str, str], media: MediaIndex, release: str
) -> None:
    places = media.for_export(pairs["media_sha256"].drop_nulls().unique())
    with path.open("w", encoding="utf-8") as file:
        for pair in rows_of(pairs, Pair):
            row = chat_row(pair, licences[pair.clip_id], places.get(pair.media_sha256 or ""), release)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _licences(lake: Lake, pairs: pl.DataFrame) -> dict[str, str]:
    """Clip id -> recorded licence, for every clip with a pair."""
    known = dict(lake.scan(VIDEO_CORPUS).select("clip_id", "licence").collect().iter_rows())
    return {clip: known.get(clip) or "unknown" for clip in sorted(set(pairs["clip_id"].to_list()))}


def _lineage(settings: Settings, lake: Lake, pairs: pl.DataFrame) -> Lineage:
    """The models with their revisions, and the content hashes of the tables that the pairs are made from."""
    taxonomy = load_taxonomy(settings)
    models = {
        "reconciler": _writers(lake, DESCRIPTIONS),
        "asker": _writers(lake, TAXONOMY_QUERIES),
        "rater": _raters(lake),
        "responder": pairs["chosen_model"].unique().sort().to_list(),
        "pair judge": pairs["pair_judge"].unique().sort().to_list(),
        "unaligned model": pairs["rejected_model"].unique().sort().to_list(),
        **{
            f"describer {name}": _writers(lake, candidate_table(name))
            for name in settings.descriptions.describers
        },
    }
    sources = {}
    tables = (table.name for table in tables_of_release(settings))
    for asset in ("video_corpus", "descriptions", "taxonomy_queries", *tables):
        manifests = [(part, lake.manifest(asset, part)) for part in lake.partitions(asset)]
        parts = {part: manifest.content_hash for part, manifest in manifests if manifest is not None}
        sources[asset] = settings_hash(parts)
    audit = _audit(settings, lake)
    return Lineage(models, sources, taxonomy.version, taxonomy.hash, taxonomy.source, audit)


def _audit(settings: Settings, lake: Lake) -> str:
    """Whether people have checked the descriptions, and the rate of made-up claims that they found."""
    manifest = lake.manifest(DESCRIPTION_FIDELITY_AUDIT.name)
    told = {} if manifest is None else manifest.info
    if told.get("passed"):
        rate = told["hallucination"]
        return (
            f"People checked the descriptions of {told['sampled_clips']} clips: of {rate['n']} claims "
            f"{rate['value']:.1%} are made up (95% interval {rate['ci_low']:.1%} to {rate['ci_high']:.1%}). "
            f"Audit {told['audit']}, signed by {told['signed_by']}."
        )
    waived = "" if settings.descriptions.audit.required else ", which the settings do not require"
    return (
        f"The descriptions have not passed a signed audit by people{waived}. They may be wrong about a clip."
    )


def _writers(lake: Lake, table: Table) -> list[str]:
    """The models that wrote a table's rows, each `<model>@<revision>`."""
    rows = lake.scan(table).select("model", "revision").unique().collect()
    return sorted(f"{model}@{revision}" for model, revision in rows.iter_rows())


def _raters(lake: Lake) -> list[str]:
    """The models that rated the queries."""
    raters = lake.scan(TAXONOMY_QUERIES).select("rater").drop_nulls().unique().collect()["rater"]
    return sorted(raters.to_list())


def _counts(pairs: pl.DataFrame) -> dict[str, dict[str, int]]:
    return {
        f"by_{name}": dict(pairs.group_by(name).len().sort(name).iter_rows())
        for name in ("principle", "subcategory", "scene", "expectation")
    }
