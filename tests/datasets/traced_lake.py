"""A lake of three clips by hand, from the clip manifest to a checkpoint and its scores.

`c1` (a file that SafeVid wrote) and `c2` (a file of the user) are train, `c3` is in the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    CLIP_MANIFEST,
    DECIDED_SIDES,
    DESCRIPTIONS,
    DPO_CHECKPOINT,
    OWN_STYLE_ANSWERS,
    PAIRS,
    QUERY_PLAN,
    RELEASE,
    SAFEVIDBENCH_BASE,
    SCORECARD,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    Table,
)
from safevid_core.corpus.trained import write_training_clips
from safevid_core.datasets.release_folder import KEPT_OUT_SCHEMA, keep_release, release_id
from safevid_core.datasets.splits import sources_of, with_splits
from safevid_core.models.ledger import Call, Ledger
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.frames import Frames
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.video.identity import clip_id_of_file, content_key, file_sha256
from safevid_core.video.uniform_frames import frames_key

SECRET = "a sentence about the person in the clip"


@dataclass
class Traced:
    """The lake with the names of what is in it; `clips` are `c1`, `c2`, `c3` -> clip id."""

    settings: Settings
    lake: Lake
    ledger: Ledger
    clips: dict[str, str]
    media: dict[str, Path]
    release: str
    release_folder: str
    checkpoints: dict[str, str]

    def said(self, name: str) -> str:
        """The text that only the rows and calls of this clip hold."""
        return f"{SECRET} {name}"


def build(root: Path, users: Path) -> Traced:
    """The lake below `root`; the file of `c2` lies in the folder `users`."""
    settings = load_settings("pocket", overrides={"root": str(root)})
    lake = Lake(root, "pocket")
    ledger = Ledger(settings.ledger_url)
    folder = root / "pocket" / "clips" / "media"
    media = {"c1": folder / "one.mp4", "c2": users / "two.mp4", "c3": folder / "three.mp4"}
    hashes = {}
    for name, path in media.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"the bytes of {name}".encode() * 50)
        hashes[name] = file_sha256(path)
    lake.media.record((hashes[name], path, path.stat().st_size) for name, path in media.items())
    clips = {name: clip_id_of_file(sha256) for name, sha256 in hashes.items()}
    made = Traced(settings, lake, ledger, clips, media, "", "", {})
    known = {
        name: {"clip_id": clips[name], "source_id": f"video-{name}", "media_sha256": hashes[name],
               "start_s": 0.0, "end_s": 2.0, "scene": "kitchen",
               "split": "benchmark" if name == "c3" else "train"}
        for name in clips
    }  # fmt: skip
    _put_corpus(made, known)
    _put_pairs(made, {name: known[name] for name in ("c1", "c2")})
    _put_benchmark(made, known["c3"])
    _put_calls(made)
    for clip in known.values():
        _put_files(lake, clip)
    return made


def put(lake: Lake, table: Table, partition: str, rows: Sequence[dict[str, Any]], **info: Any) -> None:
    """Commit rows; columns that a table lacks are left out."""
    mine = [{name: row[name] for name in row if name in table.schema} for row in rows]
    parents = sorted({str(row[table.parent or table.key]) for row in mine})
    stage = StageRows(table.frame(mine), [(each, "ok", "") for each in parents], info)
    lake.commit(table, partition, stage, "by hand", {})


def _put_corpus(made: Traced, known: dict[str, dict[str, Any]]) -> None:
    lake = made.lake
    put(lake, CLIP_MANIFEST, WHOLE, [
        {**clip, "source_row": f"sources[0]::{made.media[name].name}", "file_name": made.media[name].name,
         "origin": "folder", "caption": made.said(name)}
        for name, clip in known.items()
    ])  # fmt: skip
    put(lake, VIDEO_CORPUS, "kitchen", list(known.values()))
    sides = [{**clip, "decision_id": f"side {clip['clip_id']}"} for clip in known.values()]
    put(lake, DECIDED_SIDES, "000001", sides)
    put(lake, DESCRIPTIONS, "kitchen", [
        {**clip, "text": made.said(name), "request_key": f"described {name}", "model": "m",
         "revision": "1"} for name, clip in known.items()
    ])  # fmt: skip


def _put_pairs(made: Traced, known: dict[str, dict[str, Any]]) -> None:
    lake = made.lake
    plans = [{**clip, "plan_id": f"plan {name} {i}", "request_key": f"planned {name}"}
             for name, clip in known.items() for i in range(2)]  # fmt: skip
    put(lake, QUERY_PLAN, "kitchen", plans)
    queries = [{**clip, "plan_id": f"plan {name} 0", "query_id": f"query {name}", "query": made.said(name),
                "request_key": f"asked {name}", "rater_request_key": f"rated {name}",
                "model": "m", "revision": "1"}
               for name, clip in known.items()]  # fmt: skip
    put(lake, TAXONOMY_QUERIES, "kitchen", queries)
    pairs = [{**clip, "query_id": f"query {name}", "pair_id": f"pair {name}", "prompt": made.said(name),
              "chosen": made.said(name), "rejected": made.said(name), "chosen_request_key": f"chose {name}",
              "rejected_request_key": f"rejected {name}", "principle": "harmless", "subcategory": "x",
              "expectation": "refuse", "chosen_model": "m@1", "rejected_model": "m@1", "pair_judge": "j",
              "flags": []} for name, clip in known.items()]  # fmt: skip
    put(lake, PAIRS, "kitchen", pairs)
    frame = PAIRS.frame([{k: v for k, v in pair.items() if k in PAIRS.schema} for pair in pairs])
    rows = with_splits(frame, sources_of(lake, frame), 0.0).sort("pair_id")
    made.release = release_id(rows)
    rows = rows.with_columns(pl.lit(made.release).alias("release"))
    made.release_folder, record = keep_release(
        lake, rows, made.release, pl.DataFrame(schema=KEPT_OUT_SCHEMA), lambda record: "a card\n"
    )
    released = rows.to_dicts()
    put(lake, RELEASE, WHOLE, released, release=made.release, path=made.release_folder,
        version=record.version)  # fmt: skip
    put(lake, OWN_STYLE_ANSWERS, "kitchen", [
        {"pair_id": f"pair {name}", "scene": "kitchen", "chosen": made.said(name),
         "request_key": f"own {name}"} for name in known
    ])  # fmt: skip
    for policy, some in (("pocket", ["c1", "c2"]), ("own_style", ["c2"])):
        with lake.new_directory("checkpoints") as scratch:
            (scratch / "adapter.json").write_text(policy)
            trained = frame.filter(pl.col("clip_id").is_in([made.clips[name] for name in some]))
            write_training_clips(lake, scratch, trained)
            made.checkpoints[policy] = lake.keep("checkpoints", scratch)
        row = {"checkpoint_id": f"checkpoint {policy}", "policy": policy, "data_scale": 1.0, "seed": 0,
               "release": made.release, "checkpoint": made.checkpoints[policy]}  # fmt: skip
        put(lake, DPO_CHECKPOINT, f"{policy}@1", [row])


def _put_benchmark(made: Traced, clip: dict[str, Any]) -> None:
    lake = made.lake
    item = {**clip, "item_id": "item c3", "plan_id": "plan c3", "query": made.said("c3"),
            "benchmark": "safevidbench_base", "release": "r1", "request_key": "asked c3"}  # fmt: skip
    put(lake, SAFEVIDBENCH_BASE, WHOLE, [item])
    put(lake, BENCHMARK_RELEASES, "safevidbench_base@r1", [item])
    for policy in made.checkpoints:
        row = {**item, "response_id": f"response {policy}", "request_id": f"request {policy}",
               "system": f"{policy}@1", "policy": policy, "data_scale": 1.0, "seed": 0, "variant": "right",
               "text": made.said("c3"), "request_key": f"responded {policy}"}  # fmt: skip
        partition = f"{policy}@1|safevidbench_base"
        # The column `policy` of an item is the policy of its subcategory, that of a response its system's.
        put(lake, BENCHMARK_RESPONSES, partition, [row])
        put(lake, BENCHMARK_SCORES, partition, [{**row, "request_key": f"judged {policy}"}])
    put(lake, SCORECARD, WHOLE, [{"metric_id": "m1", "metric": "videos", "value": 3.0}])


def _put_calls(made: Traced) -> None:
    keys = [f"{what} {name}" for name in ("c1", "c2")
            for what in ("described", "planned", "asked", "rated", "chose", "rejected", "own")]  # fmt: skip
    keys += ["described c3", "asked c3", "responded pocket", "responded own_style", "judged pocket"]
    calls = [
        Call(key, "scripted/asker", "1", "descriptions", "ok", text=made.said(key.split()[1]),
             cost_usd=0.25) for key in keys
    ]  # fmt: skip
    made.ledger.store(calls, run="r")


def _put_files(lake: Lake, clip: dict[str, Any]) -> None:
    span = (clip["media_sha256"], 0.0, 2.0)
    key = content_key(*span)
    for place in (("blobs", "embeddings", "e", key[:2], f"{key}.npz"), ("features", "f", f"{key}.npy")):
        path = lake.local_path(*place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"numbers")
    frames = Frames(np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], 2.0)
    lake.frames.write(frames_key(clip["media_sha256"], 2, 0.0, 2.0), frames, clip["media_sha256"])
