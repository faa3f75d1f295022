"""The chain of one scene, from its clips to its pairs: whether anything in it is to be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from safevid_core.corpus.selection import make_video_corpus
from safevid_core.descriptions.reconciliation import make_descriptions
from safevid_core.descriptions.signal import make_signal_descriptions
from safevid_core.descriptions.synthesis import make_candidate_descriptions
from safevid_core.lake import Lake, NotCurrentError, StageReport
from safevid_core.models.llm import Gateway
from safevid_core.preferences.own_style import make_own_style_answers
from safevid_core.preferences.responses import make_pairs
from safevid_core.queries.generation import make_taxonomy_queries
from safevid_core.records import (
    AS_DESCRIBED,
    DESCRIPTIONS,
    OWN_STYLE_ANSWERS,
    SIGNAL_DESCRIPTIONS,
    VIDEO_CORPUS,
    WITHOUT_DESCRIPTIONS,
    candidate_table,
)
from safevid_core.settings import Settings


def scene_chain(
    settings: Settings, lake: Lake, scene: str, gateway: Gateway
) -> Mapping[str, Callable[[], StageReport]]:
    """What makes each table of a scene, in order; of the control arms those that the settings train."""
    models = (settings, lake, scene, gateway)
    chain: dict[str, Callable[[], StageReport]] = {
        VIDEO_CORPUS.name: partial(make_video_corpus, settings, lake, scene)
    }
    for describer in settings.descriptions.describers:
        chain[candidate_table(describer).name] = partial(
            make_candidate_descriptions, settings, lake, describer, scene, gateway
        )
    chain[SIGNAL_DESCRIPTIONS.name] = partial(make_signal_descriptions, settings, lake, scene)
    chain[DESCRIPTIONS.name] = partial(make_descriptions, *models)
    arms = {settings.alignment.policies[name].trained_on for name in settings.alignment.trained}
    for track in (AS_DESCRIBED, *((WITHOUT_DESCRIPTIONS,) if "without_descriptions" in arms else ())):
        chain[track.queries.name] = partial(make_taxonomy_queries, *models, track=track)
        chain[track.pairs.name] = partial(make_pairs, *models, track=track)
    if "own_style" in arms:
        chain[OWN_STYLE_ANSWERS.name] = partial(make_own_style_answers, *models)
    return chain


def first_to_make(settings: Settings, scene: str, gateway: Gateway) -> NotCurrentError | None:
    """The first table of a scene that a run would make; None where all are current. Nothing is made.

    What ended in a stored answer of no use is current here, whatever `models.retry_failed` says: else it
    would be asked for again for ever.
    """
    lake = Lake(settings.root, settings.profile, only_look=True)
    for make in scene_chain(settings, lake, scene, gateway).values():
        try:
            make()
        except NotCurrentError as found:
            return found
    return None
