"""What differs between two runs, read from the records of their answers, trainings and verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safevid_core.contracts.tables import BENCHMARK_RESPONSES, DPO_CHECKPOINT
from safevid_core.measurement.measurement import Measurement
from safevid_core.measurement.trust import deciding_judges
from safevid_core.storage.lake import Lake, settings_hash
from safevid_core.systems.systems import System

# Inputs of a training beside its settings.
_NOT_SETTINGS = ("pairs", "base")
# What only one seed's answers have among their settings.
_OF_A_SEED = ("adapter",)


@dataclass(frozen=True)
class Record:
    """What a system's verdicts on a benchmark came from.

    Attributes:
        data: Release of the pairs it was aligned on, and a hash of them; empty where nothing was trained.
        model: What was aligned, with its revision; what answered where nothing was trained.
        training: Name -> hash of the settings of the training.
        seeds: Of training.
        prompt: The system prompt under which it answered.
        generation: How the answers were made.
        weights: The checkpoints, or an identity of what answered.
        judges: Judge -> its model, revision, version and identity, of those that decided.
    """

    data: tuple[str, str]
    model: str
    training: dict[str, str]
    seeds: tuple[int, ...]
    prompt: str
    generation: str
    weights: str
    judges: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """One thing that differs between two runs, in words."""

    what: str
    ours: str
    against: str


def record_of(lake: Lake, measured: Measurement, system: System) -> Record:
    """What the lake says that a system's verdicts came from."""
    partition = f"{system.name}|{measured.benchmark}"
    answering = lake.manifest(BENCHMARK_RESPONSES.name, partition)
    training = lake.manifest(DPO_CHECKPOINT.name, system.name) if system.data_scale > 0 else None
    answers = (
        lake.scan(BENCHMARK_RESPONSES, [partition]).select("seed", "model", "settings").unique().collect()
    )
    recorded = [json.loads(text) for text in answers["settings"].unique().sort() if text]
    generation = {
        name: value for name, value in (recorded[0] if recorded else {}).items() if name not in _OF_A_SEED
    }
    asked = answering.inputs if answering else {}
    trained = lake.read(DPO_CHECKPOINT, system.name) if training else None
    models = answers["model"].drop_nulls().unique().sort().to_list()
    weights = asked.get("system", "")
    if trained is not None:
        bases = trained.select("base", "base_revision").drop_nulls().unique().sort("base").rows()
        models = [" ".join(base) for base in bases] or models
        weights = settings_hash(trained["checkpoint_id"].sort().to_list())
    inputs = training.inputs if training else {}
    releases = trained["release"].drop_nulls().unique().sort().to_list() if trained is not None else []
    return Record(
        data=(", ".join(releases), inputs.get("pairs", "")),
        model=", ".join(models),
        training={name: value for name, value in inputs.items() if name not in _NOT_SETTINGS},
        seeds=tuple(answers["seed"].unique().sort()),
        prompt=str(generation.pop("system_prompt", None) or ""),
        generation=json.dumps({**generation, "image_as": asked.get("image_as", "")}, sort_keys=True),
        weights=weights,
        judges=deciding_judges(lake, measured, system.name),
    )


def changes_between(ours: Record, against: Record) -> Iterator[Change]:
    """What differs, each cause once: other weights after another training are no difference of their own."""
    found = list(_of_the_system(ours, against))
    if not found and ours.weights != against.weights:
        found.append(Change("weights of the system", ours.weights, against.weights))
    yield from found
    yield from _of_the_judges(ours.judges, against.judges)


def _of_the_system(ours: Record, against: Record) -> Iterator[Change]:
    if ours.data != against.data:
        yield Change("data release", *(_release_name(each.data) for each in (ours, against)))
    if ours.model != against.model:
        yield Change("model", ours.model, against.model)
    if ours.seeds != against.seeds:
        yield Change("training seeds", *(", ".join(map(str, each.seeds)) for each in (ours, against)))
    # The hash of a policy's own settings holds its seeds.
    compared = {*ours.training, *against.training} - ({"policy"} if ours.seeds != against.seeds else set())
    differing = sorted(name for name in compared if ours.training.get(name) != against.training.get(name))
    if differing:
        sides = [
            ", ".join(f"{name} {each.training.get(name)}" for name in differing) for each in (ours, against)
        ]
        yield Change("training settings", *sides)
    if ours.prompt != against.prompt:
        yield Change("system prompt", ours.prompt, against.prompt)
    if ours.generation != against.generation:
        yield Change("generation settings", ours.generation, against.generation)


def _of_the_judges(ours: dict[str, dict[str, Any]], against: dict[str, dict[str, Any]]) -> Iterator[Change]:
    """Another judge has another prompt and parser; these differ only where the judge is the same."""
    mine, theirs = ({name: _model(judge) for name, judge in each.items()} for each in (ours, against))
    if mine != theirs:
        sides = [
            ", ".join(f"{name} {model}".strip() for name, model in sorted(each.items()))
            for each in (mine, theirs)
        ]
        yield Change("judge", *sides)
    same = [name for name in sorted(mine) if mine[name] == theirs.get(name)]
    for what, part in (("judge's prompt or sampling", _asking), ("judge's parser", _parser)):
        differing = [name for name in same if part(ours[name]) != part(against[name])]
        if differing:
            sides = [
                ", ".join(f"{name} {part(each[name])}" for name in differing) for each in (ours, against)
            ]
            yield Change(what, *sides)


def _model(judge: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (judge["model"], judge["revision"]) if part)


def _asking(judge: dict[str, Any]) -> str:
    """Prompt, frames and sampling of a judge, as a hash."""
    return str(judge["identity"] or "").rpartition("/")[0]


def _parser(judge: dict[str, Any]) -> str:
    return str(judge["version"] or "")


def _release_name(data: tuple[str, str]) -> str:
    return " ".join(part for part in data if part) or "none"
