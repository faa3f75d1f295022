"""Pairs that share a video or nearly the query with an item of a benchmark, and the check that stops them.

A policy that trains on such a pair has seen the question, or the video, that it is measured on. The pairs of
a release are compared with the items in use of every benchmark that the lake holds:

- by clip: id, bytes of the file, and for SafeVidBench also source video, near-copies, twins and the group of
  the split (:mod:`safevid_core.corpus.leakage`). The videos of other benchmarks are not embedded, so only
  their bytes are compared;
- by text: the query of the pair and that of the item are near-duplicates
  (:mod:`safevid_core.datasets.near_duplicates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from safevid_core.contracts.tables import BENCHMARK_ITEMS_SCHEMA, RELEASE, benchmark_table
from safevid_core.corpus.leakage import OF_CLIPS, shares, with_ties
from safevid_core.datasets.near_duplicates import near_duplicate_pairs
from safevid_core.settings import Settings
from safevid_core.stages.stage import Check, Finding, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake

_CLIP = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
HIT_SCHEMA = pl.Schema(
    {
        "pair_id": pl.String,
        "benchmark": pl.String,
        "release": pl.String,
        "item_id": pl.String,
        "why": pl.String,
    }
)
_LISTED = 19  # hits that the check names after its first line


def benchmarks_in(lake: Lake, settings: Settings) -> list[str]:
    """The benchmarks that the settings name and whose items the lake holds."""
    return [name for name in named_benchmarks(settings) if lake.manifest(name, WHOLE) is not None]


def named_benchmarks(settings: Settings) -> tuple[str, ...]:
    """The benchmarks that systems are asked, and those whose files the settings name."""
    return tuple(dict.fromkeys((*settings.evaluation.benchmarks, *settings.evaluation.files)))


def read_items(lake: Lake, benchmarks: Iterable[str]) -> pl.DataFrame:
    """The items in use of some benchmarks: `benchmark, release, item_id, query` and the columns of a clip."""
    columns = ("benchmark", "release", "item_id", "query", *_CLIP)
    schema = {name: BENCHMARK_ITEMS_SCHEMA[name] for name in columns}
    found = [lake.scan(benchmark_table(name), [WHOLE]).select(columns).collect() for name in benchmarks]
    return pl.concat([pl.DataFrame(schema=schema), *found]).sort("benchmark", "item_id")


def benchmark_hits(lake: Lake, pairs: pl.DataFrame, items: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """What pairs share with items, at most one row for the video and one for the text of each benchmark.

    Args:
        pairs: Columns `pair_id, prompt` and those of a clip.
        items: As of :func:`read_items`.
        threshold: Least Jaccard similarity of two queries.

    Returns:
        Rows of `HIT_SCHEMA`. `why` continues a sentence about the pair: "its query is a near-duplicate ...".
    """
    videos = [_same_video(lake, pairs, some) for _, some in items.group_by("benchmark", maintain_order=True)]
    queries = _same_query(pairs, items, threshold)
    return pl.concat([pl.DataFrame(schema=HIT_SCHEMA), *videos, queries]).sort(
        "pair_id", "benchmark", maintain_order=True
    )


def _same_video(lake: Lake, pairs: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    shown = items.drop_nulls("clip_id")
    sides = [side.select(_CLIP).unique() for side in (pairs, shown)]
    if items["benchmark"][0] in {table.name for table in OF_CLIPS}:
        sides = [with_ties(lake, side) for side in sides]
    else:  # source ids and twin groups of a published benchmark are not those of this corpus
        sides = [side.select("clip_id", "media_sha256") for side in sides]
    shared = shares(*sides).unique("clip_id", keep="first", maintain_order=True)
    first = shown.unique("clip_id", keep="first", maintain_order=True)
    return (
        pairs.select("pair_id", "clip_id")
        .join(shared, on="clip_id", maintain_order="left")
        .join(first, left_on="clip_id_benchmark", right_on="clip_id", maintain_order="left")
        .with_columns(why=pl.format("its clip shares {} with clip {}", "what", "clip_id_benchmark"))
        .select(HIT_SCHEMA.names())
    )


def _same_query(pairs: pl.DataFrame, items: pl.DataFrame, threshold: float) -> pl.DataFrame:
    asked, known = pairs.drop_nulls("prompt"), items.drop_nulls("query")
    alike = near_duplicate_pairs(asked["prompt"], known["query"], threshold, known["benchmark"])
    alike = alike.with_columns(known["benchmark"].gather(alike["other"]))
    nearest = alike.sort("row", "similarity", descending=[False, True], maintain_order=True).unique(
        ["row", "benchmark"], keep="first", maintain_order=True
    )
    return pl.concat(
        [asked[nearest["row"]].select("pair_id"), known[nearest["other"]], nearest.select("similarity")],
        how="horizontal",
    ).select(
        *HIT_SCHEMA.names()[:-1],
        why=pl.format("its query is a near-duplicate ({})", pl.col("similarity").round(2)),
    )


def sentence(hit: dict[str, str]) -> str:
    """A hit as the reason of a row. Example: "its query is a near-duplicate (0.91) of item 3f of xstest"."""
    joined = "of item" if hit["why"].endswith(")") else "of the item"
    return f"{hit['why']} {joined} {hit['item_id']} of {hit['benchmark']} (release {hit['release']})"


def _compare(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    """Compare the release with the benchmark that was made, or with all if the release was made."""
    lake, settings = tools.lake, tools.settings
    names = benchmarks_in(lake, settings) if stage.name == RELEASE.name else [stage.name]
    pairs = lake.scan(RELEASE).select("pair_id", "prompt", *_CLIP).sort("pair_id").collect()
    items = read_items(lake, names)
    hits = benchmark_hits(lake, pairs, items, settings.datasets.near_duplicate)
    report = f"contaminated_pairs-{stage.name}.csv"
    if len(hits) or lake.has_report(report):
        lake.write_report(report, hits.write_csv().encode())
    figures = {"pairs": pairs.height, "items": items.height, "benchmarks": ", ".join(names) or "none"}
    if hits.is_empty():
        return Finding((), figures | {"hits": 0})
    count = hits["pair_id"].n_unique()
    held = ", ".join(hits["benchmark"].unique().sort())
    first = (
        f"{RELEASE.name}: {count} pairs have a video or nearly a query of {held}; "
        f"{lake.report_place(report)} lists them; set datasets.contaminated to keep_out and make "
        f"{RELEASE.name} again, or leave the benchmark out of evaluation.benchmarks"
    )
    lines = [f"pair {hit['pair_id']}: {sentence(hit)}" for hit in hits.head(_LISTED).iter_rows(named=True)]
    return Finding((first, *lines), figures | {"hits": count})


NO_BENCHMARK_ITEMS = Check(
    "no_pair_repeats_a_benchmark",
    "No pair of the release shares a video or nearly the query with an item of a benchmark in the lake.",
    _compare,
)
