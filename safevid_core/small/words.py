"""The words that a frame's visual tokens spell: colour, object, event and place of the rendered world.

Each of the 9 visual tokens of a frame is a slot. Example: "red crate, on fire, kitchen," fills them with
`red | cr | ate | , | on | fire | , | kitchen | ,`. A value with fewer tokens than its slots is filled up with
commas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safevid_core.pocket.build.grammar import scene_names
from safevid_core.pocket.build.samples import Samples
from safevid_core.pocket.build.vision import ATTRIBUTES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

_FILLER = ","
# Attribute -> its number of slots, in the order of the slots.
SLOTS = {"colour": 1, "object": 2, "event": 4, "scene": 2}
EVENT_WORDS = {
    "fire": "on fire",
    "glow": "glowing softly",
    "sparks": "throwing sparks",
    "confetti": "throwing confetti",
    "acid": "leaking acid",
    "water": "dripping water",
    "hate_sign": "hate sign",
    "flag": "a flag",
    "pirated_film": "pirated film",
    "clock": "a clock",
}


def words_of(attribute: str, value: str) -> str:
    """What the slots of an attribute spell. Example: `living room` for the scene `living_room`."""
    if attribute == "scene":
        return scene_names()[value].split(" ", 1)[1]
    return EVENT_WORDS[value] if attribute == "event" else value


@dataclass(frozen=True)
class Slot:
    """One visual token of a frame.

    Attributes:
        attribute: What the slot speaks of.
        tokens: The different token ids that may fill it, int64 `[C]`.
        of_value: Value number of the attribute -> place in `tokens`, int64 `[V]`.
    """

    attribute: str
    tokens: torch.Tensor
    of_value: torch.Tensor


def slots_of(tokenizer: PreTrainedTokenizerFast) -> list[Slot]:
    """The slots of a frame in their order.

    Raises:
        ValueError: If the words of a value have more tokens than the attribute has slots.
    """
    import torch

    filler = tokenizer(_FILLER, add_special_tokens=False).input_ids
    slots = []
    for attribute, count in SLOTS.items():
        spelt = []
        for value in ATTRIBUTES[attribute]:
            ids = tokenizer(f" {words_of(attribute, value)}", add_special_tokens=False).input_ids
            if len(ids) > count:
                raise ValueError(f"{words_of(attribute, value)!r} has {len(ids)} tokens and {count} slots")
            spelt.append([*ids, *filler * (count - len(ids))])
        for place in range(count):
            tokens, of_value = torch.unique(torch.tensor([ids[place] for ids in spelt]), return_inverse=True)
            slots.append(Slot(attribute, tokens, of_value))
    return slots


def label_rows(samples: Samples, slots: Sequence[Slot]) -> torch.Tensor:
    """Place in `tokens` of the right token of each slot: int64 `[N, slots]`."""
    import torch

    columns = []
    for slot in slots:
        values = ATTRIBUTES[slot.attribute]
        numbers = torch.tensor([values.index(getattr(truth, slot.attribute)) for truth in samples.truths])
        columns.append(slot.of_value[numbers])
    return torch.stack(columns, 1)


def possible_tokens(possible: dict[str, torch.Tensor], slots: Sequence[Slot]) -> list[torch.Tensor]:
    """Term to add to the logits of each slot, `[N, C]`: -inf for a token that no possible value has.

    Args:
        possible: Of `pocket.build.vision.possible_values`.
    """
    import torch

    terms = []
    for slot in slots:
        given = possible[slot.attribute]
        term = torch.full((len(given), len(slot.tokens)), -torch.inf)
        terms.append(term.scatter_reduce(1, slot.of_value.expand(len(given), -1), given, "amax"))
    return terms
