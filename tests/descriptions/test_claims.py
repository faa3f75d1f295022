"""Each witness takes one stance to a claim, the signals by what was measured, and times are possible ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safevid_core.descriptions.claims import (
    NO_REASON,
    STANCES,
    Claim,
    settled,
    signal_stance,
    timed_measurements,
    witness_measures,
)
from safevid_core.descriptions.reconciliation import Reconciled

WITNESSES = ("x", "y", "signal")


def measured(*motion: tuple[str, str], **others: Any) -> dict[str, Any]:
    """Segments of one second each, `(kind, direction)`, and other measurements."""
    segments = [
        {"kind": kind, "direction": direction, "start_s": float(place), "end_s": place + 1.0}
        for place, (kind, direction) in enumerate(motion)
    ]
    return {"motion": segments, "cuts_s": [], "colours": [], "moving_colours": [], **others}


LEFT = measured(("still", "none"), ("object", "left"), ("object", "left"))


@pytest.mark.parametrize(
    ("text", "kind", "measurements", "stance"),
    [
        ("It moves left.", "motion", LEFT, "confirms"),
        ("It moves right.", "motion", LEFT, "refutes"),
        ("It stays still.", "motion", LEFT, "refutes"),
        ("It stays still.", "motion", measured(("still", "none")), "confirms"),
        ("A man walks; it moves right past a dog.", "event", LEFT, "refutes"),
        ("It moves left and burns.", "event", LEFT, "silent"),
        ("It moves left.", "motion", measured(("picture", "right")), "silent"),
        ("It moves left.", "motion", measured(("object", "left"), ("object", "right")), "silent"),
        ("It is red.", "colour", measured(colours=[{"name": "red"}]), "confirms"),
        ("It is blue.", "colour", measured(colours=[{"name": "red"}]), "silent"),
        ("An older man in a red coat.", "appearance", measured(colours=[{"name": "red"}]), "silent"),
        ("A red car burns.", "event", measured(colours=[{"name": "red"}]), "silent"),
        ("The light flickers.", "event", measured(flashes_per_second=4.0), "confirms"),
        ("The light flickers.", "event", measured(flashes_per_second=0.0), "silent"),
        ("A man holds a flashlight.", "object", measured(flashes_per_second=4.0), "silent"),
        ("The scene changes to a street.", "event", measured(cuts_s=[1.5]), "confirms"),
        ("A man cuts bread.", "event", measured(cuts_s=[1.5]), "silent"),
        ("It burns.", "event", {}, "silent"),
    ],
)
def test_the_signals_confirm_and_refute_what_they_can_measure(
    text: str, kind: str, measurements: dict[str, Any], stance: str
) -> None:
    assert signal_stance(text, kind, measurements) == stance


def test_measurements_overrule_the_reconcilers_account_of_them_and_give_times() -> None:
    claim = Claim(text="It moves left.", kind="motion", asserted_by=["x"], contradicted_by=["signal"])
    stored = settled(claim, WITNESSES, LEFT, 3.0)
    assert stored["asserted_by"] == ["x", "signal"]
    assert (stored["omitted_by"], stored["contradicted_by"]) == (["y"], [])
    assert stored["signal"] == "confirms"
    assert (stored["start_s"], stored["end_s"]) == (1.0, 3.0)
    as_told = settled(claim, WITNESSES, None, 3.0)
    assert as_told["contradicted_by"] == ["signal"]
    assert as_told["signal"] == "refutes"
    as_published = settled(claim, ("x", "y"), None, 3.0)
    assert as_published["signal"] is None
    assert "signal" not in as_published["contradicted_by"]


def test_a_measured_colour_confirms_only_what_the_reconciler_ascribes_to_it() -> None:
    """Grey is in the picture; only a reader of all texts knows whether the coat is what is grey."""
    grey = measured(colours=[{"name": "grey"}])
    stances = {
        named: settled(
            Claim(text="The coat is grey.", kind="colour", **{named: ["signal"]}), WITNESSES, grey, 3.0
        )
        for named in STANCES
    }
    assert {named: stored["signal"] for named, stored in stances.items()} == {
        "asserted_by": "confirms", "omitted_by": "silent", "contradicted_by": "silent",
    }  # fmt: skip
    blue = Claim(text="The coat is blue.", kind="colour", asserted_by=["signal"])
    assert settled(blue, WITNESSES, grey, 3.0)["signal"] == "silent"


@pytest.mark.parametrize(
    ("given_s", "kept"),
    [
        ((0.5, 1.5), (0.5, 1.5)),
        ((0.5, None), (0.5, None)),
        ((1.5, 0.5), (None, None)),
        ((-1.0, 1.0), (None, None)),
        ((1.0, 99.0), (None, None)),
    ],
)
def test_times_that_cannot_be_are_left_out(
    given_s: tuple[float | None, float | None], kept: tuple[float | None, float | None]
) -> None:
    stored = settled(Claim(text="It burns.", start_s=given_s[0], end_s=given_s[1]), ("x",), None, 2.0)
    assert (stored["start_s"], stored["end_s"]) == kept


@pytest.mark.parametrize(
    ("measured_words", "read"),
    [
        ({"kind": "person"}, {"kind": "person"}),
        ({"kind": "mood"}, {"kind": "other"}),
        ({"kind": None}, {"kind": "other"}),
        ({"kind": ["person", "action"]}, {"kind": "other"}),
        ({"asserted_by": None}, {"asserted_by": []}),
        ({"start_s": "0:03", "end_s": 4}, {"start_s": None, "end_s": 4.0}),
        ({"start_s": True, "end_s": float("nan")}, {"start_s": None, "end_s": None}),
    ],
)
def test_a_slip_in_one_field_does_not_cost_the_answer(
    measured_words: dict[str, Any], read: dict[str, Any]
) -> None:
    claim = Claim.model_validate({"text": "A man pours water over the pan.", **measured_words})
    assert {name: getattr(claim, name) for name in read} == read


def test_a_list_that_is_none_is_still_an_error() -> None:
    with pytest.raises(ValidationError, match="asserted_by"):
        Claim.model_validate({"text": "A man runs.", "asserted_by": "llava"})


def test_a_dropped_claim_that_cannot_be_read_costs_no_answer_and_a_kept_one_does() -> None:
    kept, dropped = {"text": "A man runs."}, {"text": "A dog barks.", "why": None}
    answer = {"description": "A man runs.", "claims": [kept], "dropped": [dropped, {"why": "no text"}]}
    found = Reconciled.model_validate(answer)
    assert [(each.text, each.why) for each in found.dropped] == [("A dog barks.", NO_REASON)]
    assert [each.given for each in found.misfits] == [{"why": "no text"}]
    with pytest.raises(ValidationError, match="claims"):
        Reconciled.model_validate({**answer, "claims": [kept, {"kind": "person"}]})


def test_what_was_measured_is_reported_with_its_seconds() -> None:
    timed = timed_measurements(measured(("still", "none"), ("object", "left"), cuts_s=[0.5]))
    assert timed == [
        {"what": "cut", "start_s": 0.5, "end_s": 0.5},
        {"what": "object moves left", "start_s": 1.0, "end_s": 2.0},
    ]


names = st.lists(st.sampled_from([*WITNESSES, "nobody", "X"]))


@given(asserted=names, omitted=names, contradicted=names, heard=st.sets(st.sampled_from(WITNESSES)))
def test_every_witness_takes_one_stance_whatever_the_reconciler_says(
    asserted: list[str], omitted: list[str], contradicted: list[str], heard: set[str]
) -> None:
    claim = Claim(text="It burns.", asserted_by=asserted, omitted_by=omitted, contradicted_by=contradicted)
    stored = settled(claim, sorted(heard), None, None)
    assert sorted(name for stance in STANCES for name in stored[stance]) == sorted(heard)
    assert not set(stored["asserted_by"]) & set(contradicted)


def test_measures_of_witnesses() -> None:
    claims = [
        {"asserted_by": ["x", "y"], "contradicted_by": []},
        {"asserted_by": ["x", "signal"], "contradicted_by": ["y"]},
    ]
    dropped = [{"asserted_by": ["y"]}]
    assert witness_measures(claims, dropped, ["x", "y", "signal"]) == (0.5, 4 / 5, 0.5)
    assert witness_measures([], [], ["x"]) == (0.0, 0.0, 0.0)
    assert witness_measures([{"asserted_by": ["signal"], "contradicted_by": []}], [], ["signal"]) == (0, 1, 0)
