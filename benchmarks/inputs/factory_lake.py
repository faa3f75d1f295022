"""A lake as the stages before the release leave it, with generated texts and 28 pairs for each clip.

The clips are rendered, 2 s of 96 x 96 pixels; every file is a real one with bytes of its own. Some pairs are
planted: near-copies of other pairs and of benchmark items, which the release must keep out.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.inputs.texts import OPENERS, Writer, vocabulary
from benchmarks.near_duplicates import edited, is_near_duplicate
from safevid_core.benchmarks.benchmark import STAGES as OUTSIDE
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DESCRIPTIONS,
    PAIR_NOISE,
    PAIR_VALIDATION,
    PAIRS,
    QUERY_PLAN,
    SAFEVIDBENCH_BASE,
    SCENE_ASSIGNMENTS,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    Table,
    benchmark_table,
    candidate_table,
)
from safevid_core.pocket.clips import generate_clips
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.taxonomy.taxonomy import Subcategory, load_scenes, load_taxonomy

ROWS, CLIPS, ITEMS = 350_000, 12_377, 30_000
PLANTED = "planted.parquet"
_BASE_ITEMS, _ITEMS_A_CLIP = 1_380, 10
# Share of the clips with a planted pair of each kind.
_SHARE = 0.05
_EXPECTATIONS = {"refuse": 0.5, "answer": 0.35, "correct": 0.15}
_REFUSALS = ("I can't help with that.", "I won't explain how to do this.", "This is dangerous, so I decline.")
_CRITERIA = 2_000
_CLAIMS = 4
_LICENCES = ("CC-BY-4.0", "CC-BY-NC-SA-4.0", None)


def settings_for(root: Path, rows: int) -> Settings:
    """The profile of the paper with a target, the benchmarks of the lake, and their pairs kept out."""
    files = {stage.name: {"path": "{root}", "revision": "generated"} for stage in OUTSIDE}
    return load_settings(
        "paper",
        overrides={
            "root": str(root),
            "datasets": {"contaminated": "keep_out", "target_pairs": rows},
            "evaluation": {"files": files},
        },
    )


def make_lake(rows: int, root: Path, seed: int = 0) -> None:
    """Make a lake with this number of pairs and the list of its planted pairs, unless it exists."""
    if (root / PLANTED).is_file():
        return
    settings = settings_for(root, rows)
    lake = Lake(root, settings.profile)
    maker = _Maker(lake, settings, rows, Writer(seed), np.random.default_rng(seed))
    maker.make()
    pl.DataFrame(maker.planted, schema=["kind", "pair_id", "other"], orient="row").write_parquet(
        root / PLANTED
    )


@dataclass
class _Maker:
    """Makes the tables scene by scene.

    Attributes:
        planted: Kind, pair id, and the id of the pair that it repeats or None. One of the two, or the pair
            itself, must be kept out.
    """

    lake: Lake
    settings: Settings
    rows: int
    writer: Writer
    rng: np.random.Generator
    planted: list[tuple[str, str, str | None]] = field(default_factory=list)

    def make(self) -> None:
        scenes = load_scenes(self.settings).ids
        subcategories = load_taxonomy(self.settings).subcategories
        items = self._benchmarks()
        criteria = self.writer.write(_CRITERIA, 12, 5, 25)
        places = np.linspace(0, round(CLIPS * self.rows / ROWS), len(scenes) + 1).astype(int)
        bounds = np.linspace(0, self.rows, len(scenes) + 1).astype(int)
        files = Media(self.lake)
        everywhere: list[pl.DataFrame] = []
        repeated: pl.DataFrame | None = None
        for number, scene in enumerate(scenes):
            clips = self._clips(scene, range(places[number], places[number + 1]), files)
            if number == 0:
                clips = clips.with_columns(
                    media_sha256=pl.when(pl.int_range(pl.len()) < 1)
                    .then(pl.lit(items["media_sha256"][0]))
                    .otherwise("media_sha256")
                )
            pairs = self._pairs(clips, int(bounds[number + 1] - bounds[number]), subcategories, criteria)
            pairs = self._with_planted(pairs, items, repeated)
            if repeated is None:
                repeated = pairs.group_by("clip_id", maintain_order=True).agg(pl.all().get(3)).head(100)
                shared = pairs.filter(media_sha256=items["media_sha256"][0])["pair_id"]
                self.planted += [("video of a benchmark", pair, None) for pair in shared]
            self._put(PAIRS, scene, pairs)
            queries = _queries(pairs)
            self._put(QUERY_PLAN, scene, queries, walked=len(clips))
            self._put(TAXONOMY_QUERIES, scene, queries)
            everywhere.append(clips)
        clips = pl.concat(everywhere)
        self._put(CORPUS_SPLIT, WHOLE, clips.with_columns(group_id=pl.col("source_id")))
        self._put(SCENE_ASSIGNMENTS, WHOLE, clips)
        self._put(PAIR_VALIDATION, WHOLE, pl.DataFrame(), labelled=0, sound=0)
        self._put(PAIR_NOISE, WHOLE, pl.DataFrame())

    def _benchmarks(self) -> pl.DataFrame:
        """Commit the items of every benchmark. Those of SafeVidBench are returned first."""
        clips = self._clips("", range(CLIPS, CLIPS + _BASE_ITEMS // _ITEMS_A_CLIP), Media(self.lake))
        each = -(-(ITEMS - _BASE_ITEMS) // len(OUTSIDE))
        found = []
        for name in (SAFEVIDBENCH_BASE.name, *(stage.name for stage in OUTSIDE)):
            base = name == SAFEVIDBENCH_BASE.name
            count = _BASE_ITEMS if base else min(each, ITEMS - sum(map(len, found)))
            ids = [content_id(name, number) for number in range(count)]
            items = pl.DataFrame({"item_id": ids, "plan_id": ids, "source_row": ids}).with_columns(
                query=self._queries(count),
                benchmark=pl.lit(name),
                release=pl.lit("generated"),
                principle=pl.lit("harmless"),
                subcategory=pl.lit("harmful_advice"),
                expectation=pl.lit("refuse"),
                media=pl.lit("video" if base else "none"),
                criteria=pl.lit([], pl.List(pl.String)),
                policy=pl.lit([], pl.List(pl.String)),
            )
            if base:
                shown = clips[np.arange(count) // _ITEMS_A_CLIP]
                items = items.hstack(shown.select("clip_id", "media_sha256", "start_s", "end_s"))
            self._put(SAFEVIDBENCH_BASE if base else benchmark_table(name), WHOLE, items)
            found.append(
                items.select("query", media_sha256="media_sha256" if base else pl.lit(None, pl.String))
            )
        return pl.concat(found)

    def _clips(self, scene: str, numbers: range, files: Media) -> pl.DataFrame:
        """The clips of a scene; they and their descriptions are committed unless the scene is empty."""
        sources = [f"yt_{content_id('source', number * 5 // 6, length=11)}" for number in numbers]
        clips = pl.DataFrame(
            {
                "clip_id": [content_id("clip", number) for number in numbers],
                "source_id": sources,
                "scene": scene,
                "split": "train" if scene else "benchmark",
                "media_sha256": [files.file_for(number) for number in numbers],
                "start_s": 0.0,
                "end_s": 2.0,
                "duration_s": 2.0,
                "fps": 8.0,
                "file_name": [f"{source}.mp4" for source in sources],
                "licence": [_LICENCES[number % 20 // 9] for number in numbers],
            },
            schema_overrides={"media_sha256": pl.String, "licence": pl.String},
        )
        files.record()
        if scene:
            self._put(VIDEO_CORPUS, scene, clips)
            told = clips.with_columns(
                text=self.writer.write(len(clips), 90, 30, 200),
                claims=self._claims(len(clips)),
                dropped=pl.lit("[]"),
                witnesses=pl.lit(list(self.settings.descriptions.describers)),
                agreement=pl.lit(0.9),
                coverage=pl.lit(1.0),
                contradiction=pl.lit(0.05),
                model=pl.lit("openai/gpt-4o"),
                revision=pl.lit("generated"),
            )
            self._put(DESCRIPTIONS, scene, told)
            for name in self.settings.descriptions.describers:
                ids = pl.concat_str(pl.lit(f"{name}_"), "clip_id")
                self._put(candidate_table(name), scene, told.with_columns(description_id=ids))
        return clips

    def _claims(self, count: int) -> pl.Series:
        """JSON lists of claims, as descriptions hold them."""
        texts = iter(self.writer.write(_CLAIMS * count, 9, 4, 15))
        witnesses = list(self.settings.descriptions.describers)
        beside = {"kind": "event", "asserted_by": witnesses, "omitted_by": [], "contradicted_by": []}
        lists = [[{"text": next(texts), **beside} for _ in range(_CLAIMS)] for _ in range(count)]
        return pl.Series(map(json.dumps, lists), dtype=pl.String)

    def _queries(self, count: int) -> pl.Series:
        openers = pl.Series(OPENERS).gather(self.rng.integers(len(OPENERS), size=count))
        return openers + " " + self.writer.write(count, 15, 5, 50, "?")

    def _pairs(
        self, clips: pl.DataFrame, rows: int, subcategories: Sequence[Subcategory], criteria: pl.Series
    ) -> pl.DataFrame:
        rng = self.rng
        of = np.arange(rows) * len(clips) // rows
        number = rng.integers(len(subcategories), size=rows)
        expectation = rng.choice(list(_EXPECTATIONS), size=rows, p=list(_EXPECTATIONS.values()))
        styles = list(self.settings.queries.styles)
        chosen, rejected = (self.writer.write(rows, 120, 20, 400) for _ in range(2))
        refusal = pl.Series(_REFUSALS).gather(rng.integers(len(_REFUSALS), size=rows))
        score = rng.integers(2, 4, size=rows) / 3
        kinds = pl.DataFrame(
            [(each.id, each.principle, each.dimension) for each in subcategories],
            schema=["subcategory", "principle", "dimension"],
            orient="row",
        )
        policies = {
            (each.id, name): each.policy_for(name) for each in subcategories for name in _EXPECTATIONS
        }
        policy = pl.DataFrame(
            {
                "subcategory": [subcategory for subcategory, _ in policies],
                "expectation": [name for _, name in policies],
                "policy": list(policies.values()),
            }
        )
        shown = clips.select("clip_id", "scene", "media_sha256", "start_s", "end_s")
        pairs = pl.concat([shown[of], kinds[number]], how="horizontal").with_columns(
            prompt=self._queries(rows),
            chosen=chosen,
            rejected=rejected,
            refusal=refusal,
            expectation=pl.Series(expectation),
            style=pl.Series(styles).gather(rng.integers(len(styles), size=rows)),
            criteria=pl.concat_list(criteria.gather(rng.integers(_CRITERIA, size=rows)) for _ in range(3)),
            satisfies=pl.lit([1, 2, 3], pl.List(pl.Int64)),
            chosen_score=score,
            rejected_score=rng.integers(0, 2, size=rows) / 3,
            flags=pl.lit([], pl.List(pl.String)),
            pair_id=pl.Series([content_id("pair", clips["scene"][0], place) for place in range(rows)]),
            query_id=pl.Series([content_id("query", clips["scene"][0], place) for place in range(rows)]),
            asks=pl.lit("steps"),
            hazard=self.writer.write(rows, 6, 3, 12),
            chosen_verdict=self.writer.write(rows, 14, 6, 30),
            rejected_verdict=self.writer.write(rows, 14, 6, 30),
            pair_judge=pl.lit("gemini/gemini-2.5-flash@generated"),
            chosen_model=pl.lit("openai/gpt-4o@generated"),
            rejected_model=pl.lit("llava-hf/LLaVA-NeXT-Video-7B-hf@generated"),
            taxonomy_hash=pl.lit(load_taxonomy(self.settings).hash),
        )
        return (
            pairs.join(policy, on=["subcategory", "expectation"], how="left", maintain_order="left")
            .with_columns(
                margin=pl.col("chosen_score") - pl.col("rejected_score"),
                chosen=pl.when(expectation="refuse")
                .then(pl.concat_str("refusal", pl.lit(" "), "chosen"))
                .otherwise("chosen"),
                chosen_request_key=pl.col("query_id"),
                rejected_request_key=pl.col("pair_id"),
            )
            .drop("refusal")
        )

    def _with_planted(
        self, pairs: pl.DataFrame, items: pl.DataFrame, repeated: pl.DataFrame | None
    ) -> pl.DataFrame:
        """The pairs with near-copies of a query of the clip, of a benchmark item, of another clip's pair."""
        first = (
            pairs["clip_id"].rle_id().to_frame("clip").with_row_index().unique("clip", maintain_order=True)
        )
        starts = first["index"].to_numpy()
        drawn = [starts[self.rng.random(len(starts)) < _SHARE] for _ in range(3)]
        columns = {name: pairs[name].to_list() for name in ("prompt", "chosen", "rejected")}
        ids = pairs["pair_id"]
        for place in drawn[0]:
            if self._copy(columns["prompt"][place], columns["prompt"], place + 1):
                self.planted.append(("query of the same clip", ids[int(place) + 1], ids[int(place)]))
        for place in drawn[1]:
            query = items["query"][int(self.rng.integers(len(items)))]
            if self._copy(query, columns["prompt"], place + 2):
                self.planted.append(("query of a benchmark", ids[int(place) + 2], None))
        for place in drawn[2] if repeated is not None else ():
            source = repeated.row(int(self.rng.integers(len(repeated))), named=True)
            done = [self._copy(source[name], columns[name], place + 4) for name in columns]
            if all(done):
                self.planted.append(("pair of another clip", ids[int(place) + 4], source["pair_id"]))
        return pairs.with_columns(pl.Series(name, texts) for name, texts in columns.items())

    def _copy(self, source: str, texts: list[str], place: int) -> bool:
        """Replace a text by a near-copy of another one. Returns whether it is a near-duplicate."""
        words = source.split()
        copy = edited(words, vocabulary(), self.rng)
        texts[place] = " ".join(copy)
        return is_near_duplicate(words, copy)

    def _put(self, table: Table, partition: str, rows: pl.DataFrame, **info: Any) -> None:
        """Commit rows; columns that they lack are null."""
        known = rows.select(name for name in rows.columns if name in table.schema)
        rows = pl.concat([pl.DataFrame(schema=table.schema), known], how="diagonal_relaxed")
        ids = sorted(set(rows[table.parent or table.key].to_list()))
        stage = StageRows(rows.cast(dict(table.schema)), [(each, "ok", "") for each in ids], info)
        self.lake.commit(table, partition, stage, "generated", {})


class Media:
    """Video files: rendered clips, each with an unused part of its own at its end."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._folder = lake, lake.root / "media"
        rendered = lake.root / "rendered"
        generate_clips(
            rendered, rendered / "sealed.json", seed=0, scenes=("kitchen",), clips_per_scene=16,
            twin_groups_per_scene=2,
        )  # fmt: skip
        self._rendered = [path.read_bytes() for path in sorted((rendered / "media").iterdir())]
        self._written: list[tuple[str, Path, int]] = []

    def file_for(self, number: int) -> str:
        """Write the file of a clip; its SHA-256."""
        note = json.dumps({"clip": number}).encode()
        # A box of type `free` at the end of an MP4 file is skipped by every reader.
        data = (
            self._rendered[number % len(self._rendered)] + struct.pack(">I", 8 + len(note)) + b"free" + note
        )
        path = self._folder / f"{number % 100:02}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self._written.append((sha256, path, len(data)))
        return sha256

    def record(self) -> None:
        """Record the files in the lake's index."""
        self._lake.media.record(self._written)
        self._written = []


def _queries(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.with_columns(
        plan_id=pl.col("query_id"),
        query=pl.col("prompt"),
        benign=(pl.col("principle") == "harmless") & (pl.col("expectation") == "answer"),
        model=pl.lit("gemini/gemini-2.5-pro"),
        revision=pl.lit("generated"),
        rater=pl.lit("anthropic/claude-sonnet-4-5@generated"),
    )


def planted(root: Path) -> Iterator[tuple[str, str, str | None]]:
    """Kind, pair id and the id of the pair that it repeats, of each planted pair."""
    yield from pl.read_parquet(root / PLANTED).iter_rows()
