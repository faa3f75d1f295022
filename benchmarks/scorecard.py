"""The scorecard at full size: seconds until its rows can be read in Chromium, and its bytes.

A made lake holds 2,760 items on two benchmarks, 1,240 distinct spans of rendered clips (a tenth of the
paper's 12,377), and six systems, one of them with three training seeds; answers have the length of a model's.
Rendered frames are easier to pack than filmed ones: in the second case every film is noise, more than films
may take of the page, and has to be made smaller. There is no peer; the goals are the project's own: 2 s and
15 MB. Run with ``python -m benchmarks.scorecard``.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import print_result
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    JUDGE_VALIDATION,
    Table,
    benchmark_table,
)
from safevid_core.pipeline import build_registry
from safevid_core.pocket.clips import generate_clips
from safevid_core.pocket.sealed import sealed_path
from safevid_core.reporting.flow import read_flow
from safevid_core.reporting.scorecard import REPORTS, write_report
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.taxonomy.taxonomy import load_scenes, load_taxonomy
from safevid_core.video.identity import file_sha256

GOALS = {"rows readable, s": 2.0, "page, MB": 15.0}
BENCHMARKS = ("safevidbench_base", "safevidbench_challenge")
POLICIES = ("pocket", "permuted_videos", "shuffled_labels")
CONTROLS = ("always_refuse", "always_comply")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CLIP_S = 2.0
# System -> how often it is safe, and helpful.
_SKILL = {"pocket@0": (0.54, 0.8), "pocket@1": (0.96, 0.78), "permuted_videos@1": (0.7, 0.75)}
_OPENINGS = 5


def settings_for(root: Path, benchmarks: Sequence[str] = BENCHMARKS) -> Settings:
    """Six systems: a policy before and after, two control runs, two plain controls."""
    settings = load_settings(
        "pocket",
        overrides={"root": str(root), "evaluation": {"benchmarks": list(benchmarks), "controls": CONTROLS}},
    )
    policies = {name: settings.alignment.policies[name] for name in POLICIES}
    return settings.model_copy(
        update={"alignment": settings.alignment.model_copy(update={"policies": policies})}
    )


def make_lake(
    settings: Settings, items: int, clips: int, rendered: int = 60, words: tuple[int, int] = (60, 160)
) -> Lake:
    """A lake with verdicts of every system on every benchmark of the settings, and a judge validation.

    Args:
        items: Of each benchmark.
        clips: Distinct spans of the rendered clips that the items are asked about.
        rendered: Clips that are rendered.
        words: Least and most words of an answer.
    """
    lake = Lake(settings.root, settings.profile)
    spans = list(_spans(lake, rendered, clips))
    writer = Writer(words)
    for benchmark in settings.evaluation.benchmarks:
        rows = [_item(benchmark, place, spans, writer) for place in range(items)]
        _commit(lake, benchmark_table(benchmark), WHOLE, rows, "plan_id")
        for system in settings.systems:
            put_measurement(settings, lake, system, benchmark, rows, writer)
    _put_validation(lake)
    return lake


class Writer:
    """Texts of made-up words, the frequent ones as frequent as in English."""

    def __init__(self, words: tuple[int, int]) -> None:
        rng = random.Random(0)
        # fmt: off
        syllables = (
            "ba", "den", "fo", "gri", "lan", "mo", "nes", "pi", "ra", "sto", "tur", "ve", "wil", "zor",
        )
        # fmt: on
        self._words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6000)]
        self._shares = [1 / (place + 2) for place in range(len(self._words))]
        self._lengths = words

    def answer(self, *seed: object) -> str:
        rng = random.Random(repr(seed))
        return self.text(rng.randint(*self._lengths), rng)

    def text(self, number: int, rng: random.Random) -> str:
        return " ".join(rng.choices(self._words, self._shares, k=number)).capitalize() + "."


def _spans(lake: Lake, rendered: int, clips: int) -> Iterator[dict[str, Any]]:
    """Distinct spans, each as a clip of its own."""
    folder = lake.root / "clips"
    scenes = [scene.id for scene in load_scenes().scenes]
    generate_clips(
        folder, sealed_path(lake.root), seed=1, scenes=scenes, clips_per_scene=-(-rendered // len(scenes)),
        twin_groups_per_scene=0,
    )  # fmt: skip
    files = sorted((folder / "media").glob("*.mp4"))[:rendered]
    hashes = [file_sha256(path) for path in files]
    lake.media.record(zip(hashes, files, (path.stat().st_size for path in files), strict=True))
    step = CLIP_S / 2 / -(-clips // len(files))
    for place in range(clips):
        file, turn = place % len(files), place // len(files)
        yield {
            "clip_id": content_id("clip", place),
            "media_sha256": hashes[file],
            "start_s": round(turn * step, 4),
            "end_s": round(turn * step + CLIP_S / 2, 4),
            "scene": scenes[place % len(scenes)],
            "media": "video",
        }


def _item(benchmark: str, place: int, spans: Sequence[dict[str, Any]], writer: Writer) -> dict[str, Any]:
    """Half of the items want a refusal or a correction, half an answer."""
    rng = random.Random(f"{benchmark} {place}")
    topics = load_taxonomy().subcategories
    topic = topics[place % len(topics)]
    wants = ("answer", "refuse", "answer", "correct")[place % 4]
    return {
        **spans[place % len(spans)],
        "item_id": content_id(benchmark, place),
        "plan_id": content_id("plan", benchmark, place),
        "benchmark": benchmark,
        "release": content_id("release", benchmark)[:16],
        "principle": {"answer": "helpful", "refuse": "harmless", "correct": "honest"}[wants],
        "dimension": topic.dimension,
        "subcategory": topic.id,
        "style": rng.choice(["direct", "implicit", "disguised", "role_play"]),
        "query": writer.text(rng.randint(8, 24), rng),
        "asks": {"answer": "question", "refuse": "help", "correct": "explanation"}[wants],
        "target": writer.text(6, rng),
        "expectation": wants,
        "criteria": [writer.text(12, rng), writer.text(12, rng)],
        "policy": topic.policy.sentences,
        "explicit": wants == "refuse" and place % 8 == 1,
        "description": writer.text(60, rng),
    }


def put_measurement(
    settings: Settings,
    lake: Lake,
    system: str,
    benchmark: str,
    items: Sequence[dict[str, Any]],
    writer: Writer,
) -> None:
    policy, _, scale = system.partition("@")
    trained = settings.alignment.policies.get(policy)
    seeds = trained.seeds if trained is not None and scale == "1" else (0,)
    answers = [
        {
            **{name: item.get(name) for name in BENCHMARK_RESPONSES.schema if name in item},
            "request_id": (request := content_id(item["item_id"], "right", seed)),
            "response_id": content_id(system, request),
            "system": system,
            "policy": policy,
            "data_scale": float(scale or 0),
            "seed": seed,
            "variant": "right",
            "text": _said(system, item, seed, writer),
            "model": system,
            "settings": "{}",
        }
        for item in items
        for seed in seeds
    ]
    partition = f"{system}|{benchmark}"
    _commit(lake, BENCHMARK_RESPONSES, partition, answers, "request_id")
    wants = {item["item_id"]: item["expectation"] for item in items}
    scores = [_score(answer, wants[answer["item_id"]], writer) for answer in answers]
    judges = {
        "rubric": {"model": settings.evaluation.judge.model, "revision": "1", "version": "2",
                   "sees": ["query", "answer", "criteria"], "decided": len(scores)},
        "string_match": {"model": None, "revision": None, "version": "1", "sees": ["answer"],
                         "decided": len(scores), "compared": len(scores), "as_the_panel": len(scores) // 2},
    }  # fmt: skip
    undecided = [score for score in scores if score["success"] is None]
    _commit(
        lake,
        BENCHMARK_SCORES,
        partition,
        [score for score in scores if score["success"] is not None],
        "response_id",
        {"judges": judges, "panel": ["rubric"]},
        {score["response_id"]: "the judge gave no verdict" for score in undecided},
    )


def _said(system: str, item: dict[str, Any], seed: int, writer: Writer) -> str:
    stock = {
        "always_refuse": "I am sorry, but I cannot help with that.",
        "always_comply": "Sure, here is how.",
    }
    return stock.get(system) or writer.answer(system, item["item_id"], seed)


def _score(answer: dict[str, Any], wants: str, writer: Writer) -> dict[str, Any]:
    rng = random.Random(answer["response_id"])
    safe, helpful = {"always_refuse": (0.7, 0.0), "always_comply": (0.0, 0.5)}.get(
        answer["system"], _SKILL.get(answer["system"], (0.6, 0.7))
    )
    success: bool | None = rng.random() < (helpful if wants == "answer" else safe)
    if rng.random() < 0.004:
        success = None
    refused = bool(success) if wants == "refuse" else rng.random() < 0.05
    reason = writer.text(12, rng)
    verdict = {"version": "2", "expected": wants, "success": success, "refused": refused, "score": None}
    beside = rng.random() < 0.3
    verdicts = [
        {**verdict, "judge": "rubric", "panel": True, "reason": reason},
        {**verdict, "judge": "string_match", "panel": False, "success": bool(success) != beside,
         "reason": "holds no phrase of refusal"},
    ]  # fmt: skip
    return {
        **{name: answer[name] for name in BENCHMARK_SCORES.schema if name in answer},
        "outcome": "ok",
        "expected": wants,
        "success": success,
        "refused": refused,
        "reason": reason,
        "verdicts": json.dumps(verdicts),
        "panel": "rubric",
        "judge": "scripted/judge",
        "judge_revision": "1",
    }


def _put_validation(lake: Lake) -> None:
    rows = [
        {"validation_id": content_id(judge, category), "judge": judge, "model": model, "revision": revision,
         "version": version, "sees": "answer", "source": "suite", "measure": "share_right",
         "grouping": "all" if category == "all" else "kind", "category": category,
         "n": n, "undecidable": 0, "value": value, "ci_low": value - 0.05,
         "ci_high": min(1.0, value + 0.05), "detail": "{}"}
        for judge, model, revision, version, value in (
            ("rubric", "scripted/judge", "1", "2", 0.92), ("string_match", None, None, "1", 0.55),
        )
        for category, n in (("all", 40), ("refusal_then_help", 6))
    ]  # fmt: skip
    rows += [
        {"validation_id": content_id("rubric", metric, measure), "judge": "rubric", "model": "scripted/judge",
         "revision": "1", "version": "2", "sees": "answer", "source": "people", "measure": measure,
         "grouping": "metric", "category": metric, "n": n, "undecidable": 0, "value": value,
         "ci_low": value - 0.05, "ci_high": min(1.0, value + 0.05), "detail": "{}"}
        for metric in ("safety_rate", "helpful_rate")
        for measure, n, value in (("recall", 80, 0.95), ("specificity", 300, 0.97))
    ]  # fmt: skip
    _commit(lake, JUDGE_VALIDATION, WHOLE, rows, "validation_id")


def _commit(
    lake: Lake,
    table: Table,
    partition: str,
    rows: Sequence[dict[str, Any]],
    parent: str,
    info: dict[str, Any] | None = None,
    undecidable: dict[str, str] | None = None,
) -> None:
    stage = StageRows(table.frame(rows), [(row[parent], "ok", "") for row in rows], info or {})
    stage.outcomes += [(each, "undecidable", reason) for each, reason in (undecidable or {}).items()]
    lake.commit(table, partition, stage, "made", {})


def put_noise_for_films(lake: Lake) -> None:
    """Every film that the page keeps becomes noise of the same size."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for path in sorted(lake.cache_folder("films").glob("*.jpg")):
        with Image.open(path) as film:
            size = (film.height, film.width, 3)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(buffer, "JPEG", quality=60)
        path.write_bytes(buffer.getvalue())


def seconds_until_readable(page_file: Path, openings: int = _OPENINGS) -> list[float]:
    """Seconds from opening the file to its first rows, each time in a browser of its own."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("safevid: no Chromium was found. Debian: apt-get install chromium")
    found = []
    with sync_playwright() as playwright:
        for _ in range(openings):
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(page_file.as_uri(), wait_until="commit")
            page.wait_for_selector("#rows-list .item", timeout=60_000)
            found.append(page.evaluate("performance.getEntriesByName('rows')[0].startTime") / 1000)
            browser.close()
    return found


def measure(settings: Settings, lake: Lake) -> tuple[float, float]:
    """Median seconds until the rows can be read, and the page's megabytes."""
    started = time.monotonic()
    write_report(settings, lake, read_flow(lake, build_registry(settings)))
    page = lake.root / "reports" / REPORTS[0]
    print(f"written in {time.monotonic() - started:.1f} s", file=sys.stderr)
    times = seconds_until_readable(page)
    print(f"opened in {', '.join(f'{each:.2f}' for each in times)} s", file=sys.stderr)
    return statistics.median(times), page.stat().st_size / 1e6


def main() -> None:
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for(Path(folder) / "safevid")
        lake = make_lake(settings, items=1380, clips=1240)
        for films in ("rendered films", "films of noise"):
            if films == "films of noise":
                put_noise_for_films(lake)
            for (case, goal), value in zip(GOALS.items(), measure(settings, lake), strict=True):
                ratio = round(goal / value, 3)
                cases.append(
                    {
                        "case": f"{films}: {case}",
                        "ours": round(value, 3),
                        "peers": {"goal": goal},
                        "ratio": ratio,
                    }
                )
    print_result("scorecard", "as named in each case", _OPENINGS, cases)


if __name__ == "__main__":
    main()
