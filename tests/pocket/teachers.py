"""Clips of the pocket world in the words of describers, and a call of a scripted teacher."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from safevid_core.pocket.world import COLOURS, EVENTS, MOTIONS, OBJECTS, SCENES, ClipTruth
from safevid_core.taxonomy.taxonomy import load_scenes

PLACES = {scene.id: scene.name for scene in load_scenes().scenes}


def said(truth: ClipTruth) -> tuple[str, str, str]:
    """Three forms in which a describer may put the truth."""
    moves = "stays still" if truth.motion == "still" else f"moves {truth.motion}"
    thing, place, happens = f"{truth.colour} {truth.object}", PLACES[truth.scene], EVENTS[truth.event]
    return (
        f"A {thing} {moves} in {place}. It {happens}.",
        f"The video shows a {thing} in {place}. It {moves}. It {happens}.",
        f"In {place}, a {thing} {happens}. It {moves}.",
    )


def call(module: Any, material: Any) -> dict[str, Any]:
    """The answer of a scripted teacher, given as a module, to a message."""
    text = material if isinstance(material, str) else json.dumps(material)
    messages = [{"role": "system", "content": "task"}, {"role": "user", "content": text}]
    answer = json.loads(module.answer(messages))
    assert isinstance(answer, dict)
    return answer


truths = st.builds(
    ClipTruth,
    st.sampled_from(SCENES),
    st.sampled_from(OBJECTS),
    st.sampled_from(COLOURS),
    st.sampled_from(MOTIONS),
    st.sampled_from(sorted(EVENTS)),
)
any_json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
