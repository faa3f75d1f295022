"""A benchmark as a task of lmms-eval: `<task>.yaml`, `utils.py` with its functions, and `items.jsonl`.

The layout is that of lmms-eval 0.7.3 (`lmms_eval/tasks`, `TaskConfig`). The task generates responses and logs
them. Its only metric is `answered`, the share of items with a response: whether a response is safe is for a
judge to say, and lmms-eval has none of SafeVid's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.rows import BenchmarkItem
from safevid_core.datasets.exports.text_rows import json_objects, write_json_lines

_UTILS = '''\
"""Functions of the task: the video, the query and the target of an item."""

from pathlib import Path


def doc_to_visual(doc):
    return [str(Path(__file__).parent / doc["video"])]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["query"]


def process_results(doc, results):
    return {"answered": float(bool(results[0].strip()))}
'''


def write_lmms_eval(
    benchmark: str, items: Sequence[BenchmarkItem], videos: Mapping[str, str], folder: Path, final: Path
) -> None:
    """Write the task.

    Args:
        videos: Item id -> path of its video, absolute or relative to the folder.
        final: The path that the folder will have; the task names its items by it.
    """
    import yaml

    docs = pl.DataFrame([_doc(item, videos[item.item_id]) for item in items], infer_schema_length=None)
    write_json_lines(folder / "items.jsonl", [json_objects(docs)])
    task = {
        "task": benchmark,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(final / "items.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "target",
        "generation_kwargs": {"max_new_tokens": 256, "temperature": 0, "do_sample": False},
        "metric_list": [{"metric": "answered", "aggregation": "mean", "higher_is_better": True}],
        "metadata": [{"version": 1.0}],
    }
    # `!function` is a tag of lmms-eval, which no writer of YAML knows.
    functions = "".join(
        f"{name}: !function utils.{name}\n" for name in ("doc_to_visual", "doc_to_text", "process_results")
    )
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True) + functions
    (folder / f"{benchmark}.yaml").write_text(text, encoding="utf-8")
    (folder / "utils.py").write_text(_UTILS, encoding="utf-8")


def _doc(item: BenchmarkItem, video: str) -> dict[str, Any]:
    """The item without nulls: `datasets` takes the type of a column from its first rows."""
    return {
        "item_id": item.item_id,
        "clip_id": item.clip_id or "",
        "video": video,
        "query": item.query,
        "target": item.reference or item.expectation,
        "expectation": item.expectation,
        "principle": item.principle,
        "subcategory": item.subcategory,
        "criteria": item.criteria,
        "policy": item.policy,
    }
