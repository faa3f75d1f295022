"""MMBench-Video: free questions about long videos, each with its right answer.

Source: arXiv 2406.14515. `MMBench-Video.tsv` with `index, video, question, answer, dimensions` (and
`video_type, video_path`); `dimensions` is a list of names, written as Python writes it. The clips are
`video/<video>.mp4`.

They are published as `video_pkl/*.pkl`. A pickle runs what its maker wrote into it, so none is opened here;
who trusts the source converts them outside, and the clips alone are read.

Its 26 dimensions roll up to nine abilities, and these to perception and reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from safevid_core.benchmarks.definition import Benchmark, SourceItem, SourceRow, plain_intent, row_of
from safevid_core.benchmarks.official_files import (
    FilesError,
    Record,
    RowError,
    file_below,
    folder_of,
    media_below,
    read_table,
    shown,
)
from safevid_core.settings import BenchmarkFiles
from safevid_core.video.decoding import quoted

NAME = "mmbench_video"
TABLE = "MMBench-Video.tsv"

# Ability -> its dimensions, as the benchmark's own evaluation has them.
ABILITIES: Mapping[str, tuple[str, ...]] = {
    "CP": ("Video Topic", "Video Emotion", "Video Scene", "Video Style"),
    "FP-S": (
        "OCR", "Object Recognition", "Attribute Recognition", "Event Recognition", "Human Motion", "Counting",
    ),
    "FP-C": ("Spatial Relationship", "Human-object Interaction", "Human Interaction"),
    "HL": ("Hallucination",),
    "LR": ("Structuralized Image-Text Understanding", "Mathematical Calculation"),
    "AR": ("Physical Property", "Function Reasoning", "Identity Reasoning"),
    "RR": ("Natural Relation", "Physical Relation", "Social Relation"),
    "CSR": ("Common Sense Reasoning",),
    "TR": ("Counterfactual Reasoning", "Causal Reasoning", "Future Prediction"),
}  # fmt: skip
HALVES: Mapping[str, tuple[str, ...]] = {
    "Perception": ("CP", "FP-S", "FP-C", "HL"),
    "Reasoning": ("LR", "AR", "RR", "CSR", "TR"),
}
ABILITY_NAMES: Mapping[str, str] = {
    "CP": "Coarse perception (CP)",
    "FP-S": "Fine-grained perception, of one thing (FP-S)",
    "FP-C": "Fine-grained perception, across things (FP-C)",
    "HL": "Hallucination (HL)",
    "LR": "Logic reasoning (LR)",
    "AR": "Attribute reasoning (AR)",
    "RR": "Relation reasoning (RR)",
    "CSR": "Common sense reasoning (CSR)",
    "TR": "Temporal reasoning (TR)",
}
_ABILITY_OF = {dimension: ability for ability, under in ABILITIES.items() for dimension in under}
_HALF_OF = {ability: half for half, under in HALVES.items() for ability in under}
# What scores are told by -> its names, as they are listed: each half before its abilities.
KINDS: Mapping[str, tuple[str, ...]] = {
    "ability": tuple(name for half, under in HALVES.items() for name in (half, *under)),
    "dimension": tuple(_ABILITY_OF),
}


def read(files: BenchmarkFiles) -> Iterator[SourceRow]:
    folder = folder_of(files)
    table = file_below(folder, TABLE)
    _refuse_pickles(folder)
    for record in read_table(table, ("index", "video", "question", "answer", "dimensions"), delimiter="\t"):
        yield row_of(record.label(table.name, "index"), _item, folder, record)


def abilities_of(dimensions: Iterable[str]) -> tuple[str, ...]:
    """The abilities that a question of these dimensions counts towards, each once, in their order."""
    found = {_ABILITY_OF[dimension] for dimension in dimensions}
    return tuple(ability for ability in ABILITIES if ability in found)


def halves_of(dimensions: Iterable[str]) -> tuple[str, ...]:
    """Perception, reasoning or both."""
    found = {_HALF_OF[ability] for ability in abilities_of(dimensions)}
    return tuple(half for half in HALVES if half in found)


def questions_by_kind(items: pl.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Kind -> name -> the ids of the questions that count towards it; both as `KINDS` lists them.

    A question counts once towards each of its dimensions, each ability of these, and each half of those, so
    that the names share questions. VLMEvalKit counts alike.

    Args:
        items: The benchmark's; columns `item_id, options`.
    """
    found: dict[str, dict[str, list[str]]] = {
        kind: {name: [] for name in names} for kind, names in KINDS.items()
    }
    for item_id, options in items.select("item_id", "options").iter_rows():
        known = json.loads(options)
        for name in (*known["halves"], *known["abilities"]):
            found["ability"][name].append(item_id)
        for name in known["dimensions"]:
            found["dimension"][name].append(item_id)
    return {kind: {name: ids for name, ids in of.items() if ids} for kind, of in found.items()}


def parse_dimensions(text: str) -> tuple[str, ...]:
    """The names in a Python list of strings, read without running it.

    Raises:
        RowError: If the text is no such list, or names a dimension that the benchmark does not have.
    """
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        raise RowError(f"`dimensions` is {shown(text)}, not a list of names")
    names = [part.strip() for part in inside[1:-1].split(",")]
    for name in names:
        quoted_name = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
        if not quoted_name or name[1:-1] not in _ABILITY_OF:
            raise RowError(f"`dimensions` holds {shown(name)}, which is none of the 26 in quotes")
    return tuple(dict.fromkeys(name[1:-1] for name in names))


def _item(source_row: str, folder: Path, record: Record) -> SourceItem:
    index, video = record.name("index"), record.text("video")
    dimensions = parse_dimensions(record.text("dimensions"))
    halves = halves_of(dimensions)
    return SourceItem(
        source_row=source_row,
        identity=index,
        query=record.text("question"),
        dimension=" and ".join(halves),
        subcategory=dimensions[0],
        style="free question",
        intent=plain_intent(
            record.text("question"),
            (
                "The response agrees with the reference answer in what the question asks.",
                "The response states nothing that contradicts the reference answer.",
            ),
        ),
        explicit=False,
        media="video",
        path=media_below(folder, f"video/{video}.mp4"),
        reference=record.text("answer"),
        options={
            "id": index,
            "dimensions": dimensions,
            "abilities": abilities_of(dimensions),
            "halves": halves,
            "video_type": record.optional("video_type"),
        },
    )


def _refuse_pickles(folder: Path) -> None:
    """Stop where the clips lie in pickles alone."""
    clips, pickles = folder / "video", folder / "video_pkl"
    if pickles.is_dir() and not (clips.is_dir() and any(clips.glob("*.mp4"))):
        raise FilesError(
            f"{quoted(pickles)} holds pickles, which can run code and are never opened here. If you trust "
            f"them, write each entry (name -> bytes) to {quoted(clips / '<name>.mp4')}, as VLMEvalKit's "
            "`unwrap_hf_pkl` does, in a container without network"
        )


BENCHMARKS = (
    Benchmark(
        name=NAME,
        title="MMBench-Video",
        measures="general",
        success="The answer says what the right answer says: 0 to 3 by meaning, reported as a mean; 2 or "
        "more counts as a success, a line of ours.",
        policy=("The response says what the right answer says, by its meaning.",),
        source="the Hugging Face data set opencompass/MMBench-Video (arXiv 2406.14515)",
        rows=(1998,),
        read=read,
        metrics=("mmbench_score", "helpful_rate"),
        judge="mmbench_video",
    ),
)
