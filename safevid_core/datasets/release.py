"""Makes the release: the pairs of all scenes as one immutable set with content hash, version and card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DESCRIPTION_FIDELITY_AUDIT,
    DESCRIPTIONS,
    PAIR_NOISE,
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
from safevid_core.datasets.pair_plots import write_plots
from safevid_core.datasets.pair_statistics import NO_QUERIES, asked_queries, statistics_of_release
from safevid_core.datasets.pair_style import STYLE_WITHIN_LIMITS
from safevid_core.datasets.release_folder import KEPT_OUT_SCHEMA, ReleaseRecord, keep_release, release_id
from safevid_core.datasets.screening import SCREENING_VERSION, Screening, screen
from safevid_core.datasets.splits import sources_of, with_splits
from safevid_core.datasets.statistics_card import statistics_section
from safevid_core.datasets.writers import writers_of
from safevid_core.models.teacher import spend_info
from safevid_core.preferences.calibration import read_calibration
from safevid_core.preferences.noise import PairNoise, read_noise
from safevid_core.settings import Settings
from safevid_core.stages.gates import covers
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

# Raised when the folder or the card changes for the same pairs.
_EXPORT_VERSION = "8"
_OF_CLIP = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
# Settings of the allocation, on which a release does not depend.
_OF_THE_PLAN = {"target_pairs", "allocation", "shortage"}


def plan_dataset_release(tools: Tools, partition: str) -> Plan:
    """Plan to unite the pairs of all scenes, and to keep them as a folder of shards with a card.

    Duplicates are kept out. `datasets.contaminated: keep_out` keeps out pairs that repeat a benchmark, too.
    `info["path"]` is the folder, relative to the lake's root. `info["release"]` is the id of the release, and
    `info["version"]` its version.
    """
    settings, lake = tools.settings, tools.lake
    datasets, taxonomy = settings.datasets, load_taxonomy(settings)
    clips = without_withdrawn(lake, _united(lake, settings).select(_OF_CLIP).unique("clip_id").collect())
    named = _united(lake, settings).select("pair_id", "clip_id").sort("pair_id").collect()
    ids = named.filter(pl.col("clip_id").is_in(clips["clip_id"].implode()))["pair_id"]
    items = read_items(lake, benchmarks_in(lake, settings)) if datasets.contaminated == "keep_out" else None
    sources = sources_of(lake, clips)
    noise = read_noise(lake)
    lineage = _lineage(settings, lake, taxonomy, noise)
    calibration = read_calibration(lake, settings.preferences)
    of_the_release = datasets.model_dump(mode="json", exclude=_OF_THE_PLAN)
    queries = asked_queries(lake) if PAIRS in tables_of_release(settings) else NO_QUERIES

    def make(pair_ids: Sequence[str]) -> StageRows:
        pairs = without_withdrawn(lake, _united(lake, settings).sort("pair_id").collect())
        hits = None if items is None else benchmark_hits(lake, pairs, items, datasets.near_duplicate)
        screening = screen(pairs, datasets, hits)
        kept_out = _kept_out(pairs, screening)
        if screening.kept_out:
            pairs = pairs.filter(~pl.col("pair_id").is_in(kept_out["pair_id"].implode()))
        rows = with_splits(pairs, sources, datasets.validation_share)
        release = release_id(rows)
        rows = rows.with_columns(pl.lit(release).alias("release"))
        licences = dict(sources.select("clip_id", "licence").iter_rows())
        shown = {clip: licences[clip] for clip in sorted(set(rows["clip_id"].unique()))}
        statistics = statistics_of_release(lake, rows, queries)

        def card(folder: Path, record: ReleaseRecord) -> str:
            statistics.write(folder)
            section = statistics_section(statistics, write_plots(statistics, folder), datasets)
            return dataset_card(rows, shown, lineage, calibration, screening, noise, section, record)

        address, record = keep_release(
            lake,
            rows,
            release,
            kept_out,
            card,
            validation_share=datasets.validation_share,
            taxonomy=taxonomy.hash,
            subcategories={each.id: each.hash for each in taxonomy.subcategories},
            settings=of_the_release,
        )
        info = {
            "release": release,
            "version": record.version,
            "path": address,
            "pairs": rows.height,
            "validation_share": datasets.validation_share,
            "calibrated": calibration.calibrated,
            "calibration": calibration.sentence,
            "noise": noise.as_dict(),
            "kept_out": screening.counts,
            "style": statistics.style.as_dict(),
            **spend_info([]),
            **_counts(rows),
        }
        return StageRows(rows, _outcomes(pair_ids, screening), info)

    inputs = {
        "pairs": settings_hash(_hashes_of_pairs(lake, settings)),
        "used": frame_hash(ids.to_frame()),
        "sources": frame_hash(sources),
        "lineage": settings_hash(lineage.as_dict()),
        "calibration": settings_hash(asdict(calibration)),
        "noise": settings_hash(noise.as_dict()),
        "screening": settings_hash(of_the_release, SCREENING_VERSION),
        "queries": frame_hash(queries),
        "export": _EXPORT_VERSION,
        **({} if items is None else {"benchmarks": frame_hash(items)}),
    }
    return Plan(inputs, ids.to_list(), make)


def _united(lake: Lake, settings: Settings) -> pl.LazyFrame:
    """The pairs of all scenes and imports."""
    tables = tables_of_release(settings)
    return pl.concat(lake.scan(table).select(PAIRS.schema.names()) for table in tables)


def _hashes_of_pairs(lake: Lake, settings: Settings) -> dict[str, str]:
    """Table and partition -> hash of the columns of its pairs, as its manifest has it."""
    found = {}
    for table in tables_of_release(settings):
        for partition in lake.partitions(table.name):
            manifest = lake.manifest(table.name, partition)
            if manifest is not None:
                columns = {name: manifest.columns.get(name) for name in PAIRS.schema}
                whole = {"rows": manifest.content_hash} if None in columns.values() else columns
                found[f"{table.name}[{partition}]"] = settings_hash(whole)
    return found


def _kept_out(pairs: pl.DataFrame, screening: Screening) -> pl.DataFrame:
    """The pairs that are kept out, with their reasons, as `KEPT_OUT_SCHEMA`."""
    out = screening.kept_out
    reasons = pl.DataFrame(
        {"pair_id": list(out), "kind": [screening.kinds[pair] for pair in out], "reason": list(out.values())},
        schema=dict.fromkeys(("pair_id", "kind", "reason"), pl.String),
    )
    named = pairs.select("pair_id", "query_id", "clip_id", "subcategory")
    return named.join(reasons, on="pair_id").select(KEPT_OUT_SCHEMA.names()).sort("pair_id")


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
        CORPUS_SPLIT.name,
        PAIR_VALIDATION.name,
        PAIR_NOISE.name,
        DESCRIPTION_FIDELITY_AUDIT.name,
    )
    # A release of imported pairs alone needs nothing that a teacher model made.
    optional = made_here if PAIRS not in tables else (DESCRIPTION_FIDELITY_AUDIT.name, CORPUS_SPLIT.name)
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
        checks=(*((covers(PAIRS.name),) if PAIRS in tables else ()), NO_BENCHMARK_ITEMS, STYLE_WITHIN_LIMITS),
    )


def _lineage(settings: Settings, lake: Lake, taxonomy: Taxonomy, noise: PairNoise) -> Lineage:
    """The models with their revisions, and the content hashes of the tables that the pairs are made from."""
    named = _united(lake, settings).select("chosen_model", "pair_judge", "rejected_model")
    pairs = named.unique().collect()
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
    if noise.second_judge:
        models["second judge"] = [noise.second_judge]
    sources = {}
    tables = (table.name for table in tables_of_release(settings))
    for asset in ("video_corpus", "descriptions", "taxonomy_queries", *tables):
        manifests = [(part, lake.manifest(asset, part)) for part in lake.partitions(asset)]
        parts = {part: manifest.content_hash for part, manifest in manifests if manifest is not None}
        sources[asset] = settings_hash(parts)
    audit = _audit(settings, lake)
    # The settings do not say how the models of imported pairs were asked.
    writers = writers_of(settings) if PAIRS in tables_of_release(settings) else ()
    return Lineage(models, sources, taxonomy.version, taxonomy.hash, taxonomy.source, audit, writers)


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
