"""The cells of a query plan: one for each query to be written, balanced over subcategories and styles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.rows import DescribedClip, columns_of
from safevid_core.models.llm import ChatAnswer
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import QuerySettings, Settings
from safevid_core.taxonomy.taxonomy import Subcategory, Taxonomy

CLIP_COLUMNS = tuple(columns_of(DescribedClip))

Phrasing = Literal["train", "held_out"]
Use = Literal["harmful", "benign"]
Kind = Literal["implicit", "harmful", "benign", "premise", "question"]


_PRINCIPLE_OF: dict[Kind, str] = {"premise": "honest", "question": "helpful"}


@dataclass(frozen=True)
class PlanCell:
    """One query to be written: its clip, subcategory and style.

    Attributes:
        benign: Whether the benign counterpart is wanted.
        ground: What in the clip gives the subcategory ground, in a few words. Empty if that is not known.
        mirrored_from: Plan id of the twin's cell whose text is asked of this clip. None if the query is new.
    """

    clip_id: str
    subcategory: str
    style: str
    benign: bool
    phrasing: Phrasing
    ground: str = ""
    mirrored_from: str | None = None

    @property
    def plan_id(self) -> str:
        asked = (self.subcategory, self.style, self.benign, self.phrasing)
        return content_id("plan", self.clip_id, *asked, self.mirrored_from or "")


class Ground(BaseModel):
    """One subcategory that has ground in a clip."""

    subcategory: str
    use: Use
    ground: str = ""

    @field_validator("ground", mode="before")
    @classmethod
    def _words(cls, ground: Any) -> Any:
        return "" if ground is None else ground


# Clip id -> what the asker found, and the answer in which it did. No answer if nothing was asked. It lacks
# the clips whose walk failed.
Walks = Mapping[str, tuple[Sequence[Ground], ChatAnswer | None]]


def plan_cells(
    clips: Sequence[DescribedClip],
    walks: Walks,
    settings: Settings,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
) -> list[PlanCell]:
    """The cells of every clip, balanced over each scene, then the mirrored cells of twins.

    Args:
        clips: If a clip has no text, every subcategory has ground, and every other clip is taken for a
            harmless one.
    """
    cells: list[PlanCell] = []
    ordered = sorted(clips, key=lambda clip: (clip.scene, clip.clip_id))
    for _, some in groupby(ordered, key=lambda clip: clip.scene):
        balance = _Balance(settings.queries)
        for ordinal, clip in enumerate(some):
            if clip.clip_id in walks:
                grounds, answer = walks[clip.clip_id]
                ground = ClipGrounds.of_walk(grounds, answer, taxonomy, ordinal)
                cells += _cells_of_clip(clip, ground, settings.queries, phrasing, balance)
    walked = [clip for clip in clips if clip.clip_id in walks]
    return cells + (_mirrored_cells(cells, walked) if settings.queries.mirror_twins else [])


class _Balance:
    """Counts of what a scene's plan holds so far."""

    def __init__(self, settings: QuerySettings) -> None:
        self.used: Counter[tuple[str, str]] = Counter()
        self._shares = {style: share for style, share in settings.styles.items() if share > 0}
        self._styles: dict[Kind, Counter[str]] = defaultdict(Counter)

    def next_style(self, kind: Kind) -> str:
        """The style that lags most behind its share of the kind's cells."""
        counts = self._styles[kind]
        whole = sum(self._shares.values())
        due = {
            style: share / whole * (counts.total() + 1) - counts[style]
            for style, share in self._shares.items()
        }
        return max(due, key=lambda style: due[style])

    def take(self, kind: Kind, cell: PlanCell) -> None:
        self.used[kind, cell.subcategory] += 1
        self._styles[kind][cell.style] += 1


@dataclass(frozen=True)
class ClipGrounds:
    """The subcategories that have ground in a clip, with their use and the words for it."""

    by_principle: Mapping[str, Sequence[tuple[Subcategory, Use, str]]]

    @classmethod
    def of_walk(
        cls, grounds: Iterable[Ground], answer: ChatAnswer | None, taxonomy: Taxonomy, ordinal: int
    ) -> ClipGrounds:
        """What the asker found in a clip. If it was not asked, every subcategory has ground.

        Args:
            ordinal: The clip's place in its scene.
        """
        return cls.found(grounds, taxonomy) if answer else cls.anything(taxonomy, ordinal)

    @classmethod
    def found(cls, grounds: Iterable[Ground], taxonomy: Taxonomy) -> ClipGrounds:
        by_principle: dict[str, list[tuple[Subcategory, Use, str]]] = defaultdict(list)
        for each in grounds:
            subcategory = taxonomy[each.subcategory]
            by_principle[subcategory.principle].append((subcategory, each.use, each.ground))
        return cls(by_principle)

    @classmethod
    def anything(cls, taxonomy: Taxonomy, ordinal: int) -> ClipGrounds:
        harmless: Use = "harmful" if ordinal % 2 == 0 else "benign"
        by_principle: dict[str, list[tuple[Subcategory, Use, str]]] = defaultdict(list)
        for each in taxonomy.subcategories:
            use = harmless if each.principle == "harmless" else "harmful"
            by_principle[each.principle].append((each, use, ""))
        return cls(by_principle)

    def of(self, kind: Kind) -> Sequence[tuple[Subcategory, Use, str]]:
        """What a query of this kind can be about.

        If something can be misused, implicit and harmful queries are about that. Otherwise an implicit query
        is the benign one: the same words beside another video. A premise needs a possible false claim.
        """
        found = self.by_principle.get(_PRINCIPLE_OF.get(kind, "harmless"), ())
        harmful = [each for each in found if each[1] == "harmful"]
        if kind == "premise":
            return harmful
        return harmful if kind in ("implicit", "harmful") and harmful else found


def _cells_of_clip(
    clip: DescribedClip,
    grounds: ClipGrounds,
    settings: QuerySettings,
    phrasing: Phrasing,
    balance: _Balance,
) -> list[PlanCell]:
    """At most as many cells as the settings ask for. Of each kind, the least used subcategory comes first."""
    cells: dict[str, PlanCell] = {}
    wanted = settings.subcategories_per_clip
    while len(cells) < wanted:
        before = len(cells)
        for kind in settings.mix:
            if len(cells) == wanted:
                break
            cell = _next_cell(kind, clip, grounds, settings, phrasing, balance, cells)
            if cell is not None:
                cells[cell.plan_id] = cell
                balance.take(kind, cell)
        if len(cells) == before:
            break
    return list(cells.values())


def _next_cell(
    kind: Kind,
    clip: DescribedClip,
    grounds: ClipGrounds,
    settings: QuerySettings,
    phrasing: Phrasing,
    balance: _Balance,
    taken: Mapping[str, PlanCell],
) -> PlanCell | None:
    """The clip's next cell of a kind. None if the clip has no ground that is not taken."""
    if kind == "implicit":
        styles = [IMPLICIT]
    elif kind in ("harmful", "benign"):
        first = balance.next_style(kind)
        styles = [first, *(style for style in settings.styles if style != first and settings.styles[style])]
    else:
        styles = ["direct"]

    def order(found: tuple[Subcategory, Use, str]) -> tuple[int, str]:
        return balance.used[kind, found[0].id], content_id(clip.text or clip.clip_id, found[0].id)

    for style in styles:
        for subcategory, use, ground in sorted(grounds.of(kind), key=order):
            benign = kind == "benign" or (kind == "implicit" and use == "benign")
            cell = PlanCell(clip.clip_id, subcategory.id, style, benign, phrasing, ground)
            if cell.plan_id not in taken:
                return cell
    return None


def _mirrored_cells(cells: Sequence[PlanCell], clips: Sequence[DescribedClip]) -> list[PlanCell]:
    """For each implicit cell of a twin, one that asks the same text of every other member."""
    group_of = {clip.clip_id: clip.twin_group for clip in clips if clip.twin_group is not None}
    members: dict[str, list[str]] = defaultdict(list)
    for clip_id in sorted(group_of):
        members[group_of[clip_id]].append(clip_id)
    return [
        replace(cell, clip_id=other, ground="", mirrored_from=cell.plan_id)
        for cell in cells
        if cell.style == IMPLICIT and cell.clip_id in group_of
        for other in members[group_of[cell.clip_id]]
        if other != cell.clip_id
    ]
