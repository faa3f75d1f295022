"""Loading of the safety taxonomy and the scene categories.

Both are versioned YAML files in the folder of this module. Each row that depends on one of them has its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from safevid_core.contracts.errors import SafeVidError

Principle = Literal["helpful", "honest", "harmless"]
PRINCIPLES: tuple[Principle, ...] = get_args(Principle)

SAFETY_FILE = Path(__file__).with_name("safety.yaml")
SCENES_FILE = Path(__file__).with_name("scenes.yaml")

# The number of scenes is from section 3.1 of the paper, the number of challenge categories from section 4.
SCENE_COUNT = 30
CHALLENGE_COUNT = 7
MIN_SUBCATEGORIES = 24


class TaxonomyError(SafeVidError, ValueError):
    """The taxonomy file cannot be used. The message names the file and the entry, and says what to do."""


@dataclass(frozen=True)
class Subcategory:
    """One kind of query.

    Attributes:
        id: Id of the subcategory.
        name: Name for people.
        principle: The principle that it belongs to.
        dimension: Id of the dimension that it belongs to.
        definition: Definition of the kind of query.
        hazard_about_a_video: The hazard of such a query about a video.
        benign_counterpart: An example of a similar query that deserves a full answer.
        cues: Words of a description for which such a query fits. They only change the order of the plan.
        benign_cues: Words of a description for which the benign counterpart fits.
        challenge: The challenge category that it belongs to. None if there is none.
    """

    id: str
    name: str
    principle: Principle
    dimension: str
    definition: str
    hazard_about_a_video: str
    benign_counterpart: str
    cues: tuple[str, ...] = ()
    benign_cues: tuple[str, ...] = ()
    challenge: str | None = None


@dataclass(frozen=True)
class Taxonomy:
    """A checked safety taxonomy.

    Attributes:
        version: Version of the file.
        source: Source of the taxonomy.
        subcategories: All subcategories in the file's order.
        guidelines: Principle -> guidelines for the responder.
        challenge: Ids of the harmful categories of the challenge set.
        hash: 20 hex digits, a hash of the file's content.
    """

    version: str
    source: str
    subcategories: tuple[Subcategory, ...]
    guidelines: Mapping[str, str]
    challenge: tuple[str, ...]
    hash: str

    def of_principle(self, principle: str) -> tuple[Subcategory, ...]:
        """Return the subcategories of one principle, in the file's order."""
        return tuple(each for each in self.subcategories if each.principle == principle)

    def __getitem__(self, subcategory_id: str) -> Subcategory:
        for each in self.subcategories:
            if each.id == subcategory_id:
                return each
        raise KeyError(f"subcategory {subcategory_id!r} is not in the taxonomy, version {self.version}")


@dataclass(frozen=True)
class Scene:
    """One scene category.

    Attributes:
        id: Id of the scene. Example: `kitchen`.
        name: Name for people.
        prompts: Texts for the video-text embedder.
    """

    id: str
    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Scenes:
    """The 30 scene categories.

    Attributes:
        version: Version of the file.
        source: Source of the categories.
        scenes: The scenes in the file's order.
        hash: 20 hex digits, a hash of the file's content.
    """

    version: str
    source: str
    scenes: tuple[Scene, ...]
    hash: str

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(scene.id for scene in self.scenes)

    def __getitem__(self, scene_id: str) -> Scene:
        for scene in self.scenes:
            if scene.id == scene_id:
                return scene
        raise KeyError(f"scene {scene_id!r} is not one of {', '.join(self.ids)}")


@lru_cache
def load_taxonomy(path: Path = SAFETY_FILE) -> Taxonomy:
    """Return a safety taxonomy after checks.

    Args:
        path: YAML file. Defaults to `safety.yaml` of the package.

    Raises:
        TaxonomyError: If the file is unreadable, if a key is unknown or missing, if a text is empty, if an id
            is repeated, if a principle is unknown, if there are fewer than 24 subcategories, or if there are
            not exactly seven harmful challenge categories.
    """
    tree = _read(path)
    subcategories: list[Subcategory] = []
    guidelines: dict[str, str] = {}
    for principle in _entries(tree, "principles", path):
        _require(principle, path, ("id", "name", "definition", "guidelines"), ("dimensions",))
        guidelines[principle["id"]] = " ".join(principle["guidelines"].split())
        for dimension in _entries(principle, "dimensions", path):
            _require(dimension, path, ("id", "name"), ("subcategories", "challenge"))
            subcategories += _subcategories(principle["id"], dimension, path)
    challenge = tuple(dict.fromkeys(each.challenge for each in subcategories if each.challenge))
    _check_taxonomy(subcategories, guidelines, challenge, path)
    return Taxonomy(
        version=str(tree["version"]),
        source=str(tree["source"]),
        subcategories=tuple(subcategories),
        guidelines=guidelines,
        challenge=challenge,
        hash=_hash(tree),
    )


@lru_cache
def load_scenes(path: Path = SCENES_FILE) -> Scenes:
    """Return the scene categories after checks.

    Args:
        path: YAML file. Defaults to `scenes.yaml` of the package.

    Raises:
        TaxonomyError: If the file is unreadable, if a text is missing or empty, if an id is repeated, or if
            there are not exactly 30 scenes.
    """
    tree = _read(path)
    templates = [str(template) for template in tree.get("templates") or []]
    if not templates or any("{name}" not in template for template in templates):
        raise TaxonomyError(
            f"{path.name}: `templates` must have at least one entry, and each entry must contain {{name}}"
        )
    scenes = []
    for entry in _entries(tree, "scenes", path):
        _require(entry, path, ("id", "name"), ())
        prompts = tuple(template.format(name=entry["name"]) for template in templates)
        scenes.append(Scene(entry["id"], entry["name"], prompts))
    _check_unique((scene.id for scene in scenes), path)
    if len(scenes) != SCENE_COUNT:
        raise TaxonomyError(
            f"{path.name}: {len(scenes)} scenes; the method has {SCENE_COUNT}, so add or remove some"
        )
    return Scenes(str(tree["version"]), str(tree["source"]), tuple(scenes), _hash(tree))


def _subcategories(principle: Any, dimension: Mapping[str, Any], path: Path) -> list[Subcategory]:
    texts = ("id", "name", "definition", "hazard_about_a_video", "benign_counterpart")
    found = []
    for entry in _entries(dimension, "subcategories", path):
        _require(entry, path, texts, ("cues", "benign_cues", "challenge"))
        own = entry["id"] if entry.get("challenge") else None
        found.append(
            Subcategory(
                principle=principle,
                dimension=dimension["id"],
                cues=tuple(entry.get("cues", ())),
                benign_cues=tuple(entry.get("benign_cues", ())),
                challenge=dimension["id"] if dimension.get("challenge") else own,
                **{name: entry[name] for name in texts},
            )
        )
    return found


def _check_taxonomy(
    subcategories: list[Subcategory], guidelines: Mapping[str, str], challenge: tuple[str, ...], path: Path
) -> None:
    if tuple(guidelines) != PRINCIPLES:
        raise TaxonomyError(f"{path.name}: principles must be {', '.join(PRINCIPLES)}, in this order")
    _check_unique((each.id for each in subcategories), path)
    if len(subcategories) < MIN_SUBCATEGORIES:
        raise TaxonomyError(
            f"{path.name}: {len(subcategories)} subcategories; give at least {MIN_SUBCATEGORIES}"
        )
    if len(challenge) != CHALLENGE_COUNT:
        raise TaxonomyError(
            f"{path.name}: {len(challenge)} categories are marked `challenge: true`; mark {CHALLENGE_COUNT}"
        )
    misplaced = [each.id for each in subcategories if each.challenge and each.principle != "harmless"]
    if misplaced:
        raise TaxonomyError(
            f"{path.name}: {misplaced[0]} is marked `challenge: true` outside principle harmless; remove it"
        )


def _check_unique(ids: Iterable[str], path: Path) -> None:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise TaxonomyError(f"{path.name}: id {each!r} is used twice; rename one")
        seen.add(each)


def _entries(tree: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = tree.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise TaxonomyError(f"{path.name}: `{key}` of {tree.get('id', 'the file')} must be a list of entries")
    return entries


def _require(entry: Mapping[str, Any], path: Path, texts: tuple[str, ...], others: tuple[str, ...]) -> None:
    for name in texts:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise TaxonomyError(
                f"{path.name}: `{name}` of {entry.get('id', entry)} is empty or missing; write it"
            )
    unknown = set(entry) - set(texts) - set(others)
    if unknown:
        raise TaxonomyError(
            f"{path.name}: {entry['id']} has unknown keys {', '.join(sorted(unknown))}; remove them"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaxonomyError(
            f"{path}: cannot be read: {str(error).splitlines()[0]}; check the path and the YAML"
        ) from None
    if not isinstance(tree, dict) or not tree.get("version") or not tree.get("source"):
        raise TaxonomyError(f"{path}: must be a mapping with `version` and `source`")
    return tree


def _hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:20]
