"""Loading of the safety taxonomy and the scene categories.

Both are versioned YAML files: those of this folder, or a person's own (settings `taxonomy`). Each row that
is made from one of them has its hash. A file that changed is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from safevid_core.settings import Settings
from safevid_core.taxonomy.entries import (
    TaxonomyError,
    check_ids,
    entries_of,
    hash_of,
    is_list_of_texts,
    read_tree,
    require_texts,
    stamp_of,
)
from safevid_core.taxonomy.foreign import codes_of

Principle = Literal["helpful", "honest", "harmless"]
PRINCIPLES: tuple[Principle, ...] = get_args(Principle)

SAFETY_FILE = Path(__file__).with_name("safety.yaml")
SCENES_FILE = Path(__file__).with_name("scenes.yaml")


@dataclass(frozen=True)
class Policy:
    """What a safe response does, in sentences about the response that a judge checks one by one.

    Attributes:
        must: What the response does. Example: "The response says that the act is dangerous."
        must_not: What it does not do. Example: "The response gives no steps for copying the act."
        may_offer: What it may do instead.
    """

    must: tuple[str, ...]
    must_not: tuple[str, ...]
    may_offer: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All sentences: `must`, then `must_not`, then `may_offer`."""
        return [*self.must, *self.must_not, *self.may_offer]


@dataclass(frozen=True)
class Counterpart:
    """A worked benign counterpart: a query about a video that deserves a full answer, and why."""

    video: str
    query: str
    why: str


@dataclass(frozen=True)
class Subcategory:
    """One kind of query.

    Attributes:
        id: Id of the subcategory.
        name: Name for people.
        principle: The principle that it belongs to.
        dimension: Id of the dimension that it belongs to.
        definition: Definition of the kind of query.
        policy: What a safe response to such a query does.
        hazard_about_a_video: What makes such a query hazardous beside a video.
        hazard_in_time: What only the order or the timing of events shows.
        benign_counterpart: A similar query that deserves a full answer.
        codes: Foreign taxonomy -> the codes of its categories that cover this subcategory.
        challenge: The challenge category that it belongs to. None if there is none.
    """

    id: str
    name: str
    principle: Principle
    dimension: str
    definition: str
    policy: Policy
    hazard_about_a_video: str
    hazard_in_time: str
    benign_counterpart: Counterpart
    codes: Mapping[str, tuple[str, ...]]
    challenge: str | None = None

    @cached_property
    def hash(self) -> str:
        """20 hex digits, a hash of everything but the codes of foreign taxonomies, which no prompt holds."""
        return hash_of(asdict(replace(self, codes={})))

    def policy_for(self, expectation: str) -> list[str]:
        """The sentences of the policy that hold for a query with this expectation.

        What a response to a harmful query must do, such as to decline, does not hold for the benign
        counterpart. What no response may do holds for both.
        """
        policy = self.policy
        if self.principle == "harmless" and expectation == "answer":
            return [*policy.must_not, *policy.may_offer]
        return policy.sentences


@dataclass(frozen=True)
class Taxonomy:
    """A checked safety taxonomy.

    Attributes:
        version: Version of the file.
        source: Source of the taxonomy.
        subcategories: The subcategories in use, in the file's order.
        challenge: Ids of the harmful categories of the challenge set.
        hash: 20 hex digits, a hash of the file's content and of the subset in use.
    """

    version: str
    source: str
    subcategories: tuple[Subcategory, ...]
    challenge: tuple[str, ...]
    hash: str

    def of_principle(self, principle: str) -> tuple[Subcategory, ...]:
        """Return the subcategories of one principle, in the file's order."""
        return tuple(each for each in self.subcategories if each.principle == principle)

    def of_code(self, foreign: str, code: str) -> tuple[Subcategory, ...]:
        """Return the subcategories that a category of a foreign taxonomy covers.

        Example: `of_code("llama_guard", "S10")` holds `hate_speech`.
        """
        return tuple(each for each in self.subcategories if code in each.codes.get(foreign, ()))

    def __contains__(self, subcategory_id: str) -> bool:
        return any(each.id == subcategory_id for each in self.subcategories)

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
    """The scene categories.

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


def taxonomy_files(settings: Settings) -> list[Path]:
    """The files of a person's own that the settings name. The plan of every stage may depend on them."""
    named = (settings.taxonomy.path, settings.taxonomy.scenes_path)
    return [path for path in named if path is not None]


def load_taxonomy(settings: Settings | None = None) -> Taxonomy:
    """Return the taxonomy of the settings after checks.

    Args:
        settings: None means the whole taxonomy of the package.

    Raises:
        TaxonomyError: If the file is unreadable, if a key is unknown or missing, if a text or a policy is
            empty, if an id is repeated, if a principle, a foreign code or a subcategory of the subset is
            unknown, or if the number of challenge categories is not the one that the settings expect.
    """
    if settings is None:
        return read_taxonomy()
    wanted = settings.taxonomy
    path = wanted.path or SAFETY_FILE
    taxonomy = read_taxonomy(path, wanted.subcategories)
    marked = f"{len(taxonomy.challenge)} categories are marked `challenge: true`"
    _check_number(len(taxonomy.challenge), wanted.expected_challenge, path, marked, "expected_challenge")
    return taxonomy


def load_scenes(settings: Settings | None = None) -> Scenes:
    """Return the scene categories of the settings after checks.

    Args:
        settings: None means the categories of the package.

    Raises:
        TaxonomyError: If the file is unreadable, if a text is missing or empty, if an id is repeated, or if
            the number of scenes is not the one that the settings expect.
    """
    if settings is None:
        return read_scenes()
    wanted = settings.taxonomy
    path = wanted.scenes_path or SCENES_FILE
    scenes = read_scenes(path)
    found = len(scenes.scenes)
    _check_number(found, wanted.expected_scenes, path, f"{found} scenes", "expected_scenes")
    return scenes


def read_taxonomy(path: Path = SAFETY_FILE, subset: tuple[str, ...] | None = None) -> Taxonomy:
    """Return a safety taxonomy after checks.

    Args:
        path: YAML file. Defaults to `safety.yaml` of the package.
        subset: Ids of the subcategories in use. None means all.

    Raises:
        TaxonomyError: As :func:`load_taxonomy`.
    """
    return _read_taxonomy(path, subset, stamp_of(path))


@lru_cache
def _read_taxonomy(path: Path, subset: tuple[str, ...] | None, stamp: tuple[int, ...]) -> Taxonomy:
    """As :func:`read_taxonomy`. `stamp` tells one state of the file from another."""
    tree = read_tree(path)
    subcategories: list[Subcategory] = []
    principles = []
    for principle in entries_of(tree, "principles", path):
        require_texts(principle, path, ("id", "name", "definition"), ("dimensions",))
        principles.append(principle["id"])
        for dimension in entries_of(principle, "dimensions", path):
            require_texts(dimension, path, ("id", "name"), ("subcategories", "challenge"))
            subcategories += _subcategories(principle["id"], dimension, path)
    if set(principles) - set(PRINCIPLES) or len(set(principles)) < len(principles):
        raise TaxonomyError(f"{path.name}: principles must be some of {', '.join(PRINCIPLES)}, each once")
    check_ids((each.id for each in subcategories), path)
    misplaced = [each.id for each in subcategories if each.challenge and each.principle != "harmless"]
    if misplaced:
        raise TaxonomyError(
            f"{path.name}: {misplaced[0]} is marked `challenge: true` outside principle harmless; remove it"
        )
    used = _subset(subcategories, subset, path)
    return Taxonomy(
        version=str(tree["version"]),
        source=str(tree["source"]),
        subcategories=tuple(used),
        challenge=tuple(dict.fromkeys(each.challenge for each in used if each.challenge)),
        hash=hash_of(tree if subset is None else {"tree": tree, "subset": sorted(subset)}),
    )


def read_scenes(path: Path = SCENES_FILE) -> Scenes:
    """Return the scene categories of a file after checks.

    Raises:
        TaxonomyError: As :func:`load_scenes`.
    """
    return _read_scenes(path, stamp_of(path))


@lru_cache
def _read_scenes(path: Path, stamp: tuple[int, ...]) -> Scenes:
    """As :func:`read_scenes`. `stamp` tells one state of the file from another."""
    tree = read_tree(path)
    templates = tree.get("templates")
    if not is_list_of_texts(templates) or not templates or any("{name}" not in each for each in templates):
        raise TaxonomyError(
            f"{path.name}: `templates` must have at least one entry, and each entry must contain {{name}}"
        )
    scenes = []
    for entry in entries_of(tree, "scenes", path):
        require_texts(entry, path, ("id", "name"), ())
        prompts = tuple(template.replace("{name}", entry["name"]) for template in templates)
        scenes.append(Scene(entry["id"], entry["name"], prompts))
    check_ids((scene.id for scene in scenes), path)
    return Scenes(str(tree["version"]), str(tree["source"]), tuple(scenes), hash_of(tree))


def _check_number(found: int, expected: int | None, path: Path, says: str, setting: str) -> None:
    """Raise an error if a file holds another number of entries than the setting asks for."""
    if expected is not None and found != expected:
        raise TaxonomyError(f"{path.name}: {says}; taxonomy.{setting} asks for {expected}")


def _subset(
    subcategories: list[Subcategory], subset: tuple[str, ...] | None, path: Path
) -> list[Subcategory]:
    if subset is None:
        return subcategories
    unknown = sorted(set(subset) - {each.id for each in subcategories})
    if unknown:
        raise TaxonomyError(
            f"{path.name}: taxonomy.subcategories names {unknown[0]!r}, which the file does not have; "
            "remove it"
        )
    return [each for each in subcategories if each.id in subset]


def _subcategories(principle: Any, dimension: Mapping[str, Any], path: Path) -> list[Subcategory]:
    texts = ("id", "name", "definition", "hazard_about_a_video", "hazard_in_time")
    found = []
    for entry in entries_of(dimension, "subcategories", path):
        require_texts(entry, path, texts, ("policy", "benign_counterpart", "codes", "challenge"))
        own = entry["id"] if entry.get("challenge") else None
        found.append(
            Subcategory(
                principle=principle,
                dimension=dimension["id"],
                policy=_policy(entry, path),
                benign_counterpart=_counterpart(entry, path),
                codes=codes_of(entry, path),
                challenge=dimension["id"] if dimension.get("challenge") else own,
                **{name: entry[name] for name in texts},
            )
        )
    return found


def _policy(entry: Mapping[str, Any], path: Path) -> Policy:
    policy = entry.get("policy")
    if not isinstance(policy, dict) or not (policy.get("must") or policy.get("must_not")):
        raise TaxonomyError(
            f"{path.name}: the policy of {entry['id']} has no sentences; write what a safe response must and "
            "must not do"
        )
    unknown = {str(key) for key in policy} - {"must", "must_not", "may_offer"}
    if unknown:
        raise TaxonomyError(
            f"{path.name}: the policy of {entry['id']} has unknown keys {', '.join(sorted(unknown))}; "
            "remove them"
        )
    for name, sentences in policy.items():
        if not is_list_of_texts(sentences):
            raise TaxonomyError(f"{path.name}: `{name}` of {entry['id']} must be a list of sentences")
    lists = {name: tuple(policy.get(name, ())) for name in ("must", "must_not", "may_offer")}
    return Policy(**lists)


def _counterpart(entry: Mapping[str, Any], path: Path) -> Counterpart:
    counterpart = entry.get("benign_counterpart")
    if not isinstance(counterpart, dict):
        raise TaxonomyError(
            f"{path.name}: `benign_counterpart` of {entry['id']} must have `video`, `query` and `why`"
        )
    named = {"id": f"the benign counterpart of {entry['id']}", **counterpart}
    require_texts(named, path, ("id", "video", "query", "why"), ())
    return Counterpart(**counterpart)
