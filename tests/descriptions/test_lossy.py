"""What each loss takes away, and that it leaves the method's own tables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.alignment.training_pairs import read_training_pairs
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    LOSSY_DESCRIPTIONS,
    LOSSY_PAIRS,
    LOSSY_QUERIES,
    RELEASE,
    TAXONOMY_QUERIES,
)
from safevid_core.descriptions.lossy import LossError, first_sentence, without_times
from safevid_core.models.llm import Gateway
from safevid_core.settings import LOSSES, Settings
from safevid_core.storage.lake import WHOLE, Lake, audit_partition
from tests.descriptions.candidates import BALL, CRATE, DESCRIBERS, SCENE, commit_candidates, commit_corpus
from tests.stages import run_stage


@pytest.fixture
def lake(settings: Settings, tmp_path: Path) -> Lake:
    """Clips `a` and `b`, described; of `b` the first describer says nothing, and on motion in `a` the signals
    decide."""
    lake = Lake(tmp_path, "pocket")
    commit_corpus(lake, ("a", "b"))
    said = {"a": CRATE, "b": None}, {"a": CRATE.replace("left", "up"), "b": BALL}, {"a": CRATE, "b": BALL}
    for describer, texts in zip(DESCRIBERS, said, strict=True):
        if describer == DESCRIBERS[2]:
            texts["a"] = CRATE.replace("left", "down")
        commit_candidates(lake, describer, texts)
    commit_candidates(
        lake, "signal", {"a": "Main colours: red. Motion: something moves left.", "b": "No cuts."}
    )
    run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    return lake


def texts_of(lake: Lake, loss: str) -> dict[str, str]:
    audit_partition(lake, LOSSY_DESCRIPTIONS, f"{loss}|{SCENE}")
    rows = lake.read(LOSSY_DESCRIPTIONS, f"{loss}|{SCENE}")
    return dict(rows.select("clip_id", "text").iter_rows())


def test_each_loss_takes_away_what_it_says(settings: Settings, lake: Lake) -> None:
    gateway = Gateway(settings)
    for loss in LOSSES:
        run_stage(settings, lake, "lossy_descriptions", f"{loss}|{SCENE}", gateway)
    whole = dict(lake.read(DESCRIPTIONS).select("clip_id", "text").iter_rows())
    assert whole == {"a": CRATE, "b": BALL}
    assert texts_of(lake, "without_times") == whole
    assert texts_of(lake, "first_sentence") == {
        "a": "A red crate moves left in a kitchen.", "b": "A blue ball stays still in a kitchen.",
    }  # fmt: skip
    assert texts_of(lake, "one_describer") == {"a": CRATE}
    lost = lake.outcomes(LOSSY_DESCRIPTIONS.name, f"one_describer|{SCENE}").filter(input_id="b").row(0)
    assert lost[1:] == ("filtered", "one_describer: nothing is left")
    alone = lake.read(LOSSY_DESCRIPTIONS, f"one_describer|{SCENE}").row(0, named=True)
    assert (alone["witnesses"], alone["agreement"]) == ([DESCRIBERS[0]], None)
    assert texts_of(lake, "with_signal") == whole
    assert texts_of(lake, "without_signal") == {"a": "A red crate is in a kitchen. It is on fire.", "b": BALL}


def test_a_loss_flows_into_partitions_of_its_own(settings: Settings, lake: Lake) -> None:
    gateway = Gateway(settings)
    run_stage(settings, lake, "query_plan", SCENE, gateway)
    run_stage(settings, lake, "taxonomy_queries", SCENE, gateway)
    for loss in ("first_sentence", "one_describer"):
        run_stage(settings, lake, "lossy_descriptions", f"{loss}|{SCENE}", gateway)
        run_stage(settings, lake, "lossy_query_plan", f"{loss}|{SCENE}", gateway)
        run_stage(settings, lake, "lossy_queries", f"{loss}|{SCENE}", gateway)
        audit_partition(lake, LOSSY_QUERIES, f"{loss}|{SCENE}")
    assert not run_stage(settings, lake, "taxonomy_queries", SCENE, gateway).computed
    assert not run_stage(settings, lake, "lossy_descriptions", f"first_sentence|{SCENE}", gateway).computed
    own = lake.read(TAXONOMY_QUERIES)
    short = lake.read(LOSSY_QUERIES, f"first_sentence|{SCENE}")
    assert set(own["description"]) == {CRATE, BALL}
    assert set(short["description"]) == {first_sentence(CRATE), first_sentence(BALL)}
    # What burns is in the second sentence: without it nothing harmful is to be seen.
    assert own.filter(style="implicit", clip_id="a")["expectation"].unique().to_list() == ["refuse"]
    assert "refuse" not in short.filter(style="implicit", clip_id="a")["expectation"]
    assert set(lake.read(LOSSY_QUERIES, f"one_describer|{SCENE}")["clip_id"]) == {"a"}


def test_a_policy_trains_on_the_pairs_of_its_loss_and_on_no_more_than_the_release_has(lake: Lake) -> None:
    for loss, count in (("first_sentence", 4), ("one_describer", 2)):
        rows = [{"pair_id": f"{loss} {i}", "query_id": str(i), "chosen": loss} for i in range(count)]
        stage = StageRows(LOSSY_PAIRS.frame(rows), sequence_outcomes([str(i) for i in range(count)], "ok"))
        lake.commit(LOSSY_PAIRS, f"{loss}|{SCENE}", stage, "given", {})
    release = RELEASE.frame([{"pair_id": str(i), "release": "r"} for i in range(3)])
    lake.commit(RELEASE, WHOLE, StageRows(release, sequence_outcomes(["0", "1", "2"], "ok")), "given", {})
    pairs = read_training_pairs(lake, "first_sentence")
    assert pairs.rows["chosen"].to_list() == ["first_sentence"] * 4
    assert (pairs.made_by, pairs.share) == ("lossy_pairs[first_sentence]", 0.75)
    assert read_training_pairs(lake, "one_describer").share == 1.0
    assert read_training_pairs(lake, "without_times").are_empty
    assert read_training_pairs(lake, "release").release == "r"


def test_a_loss_that_there_is_none_of_is_named(settings: Settings, lake: Lake) -> None:
    with pytest.raises(LossError, match=r"no loss 'colours'.*first_sentence"):
        run_stage(settings, lake, "lossy_descriptions", f"colours|{SCENE}", Gateway(settings))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("At 1.7 s a man enters.", "A man enters."),
        ("A man enters at 1.7 s, then leaves after three seconds.", "A man enters, then leaves."),
        ("From 0 to 2 seconds it burns.", "It burns."),
        ("It burns (0.5-1.5 s) for the first 2 seconds.", "It burns."),
        ("Between 0:03 and 0:05 it turns, from 3s to 4s.", "It turns."),
        ("About 3 seconds in, he falls.", "He falls."),
        ("In the 90s a second man bought 5 boxes.", "In the 90s a second man bought 5 boxes."),
        ("Two second-hand cars stop.", "Two second-hand cars stop."),
        (CRATE, CRATE),
    ],
)
def test_times_are_taken_out_and_nothing_else(text: str, left: str) -> None:
    assert without_times(text) == left


def test_the_first_sentence_ends_where_another_begins() -> None:
    assert first_sentence("It moves 1.5 m. It stops.") == "It moves 1.5 m."
    assert first_sentence("It moves") == "It moves"
    assert first_sentence("") == ""
