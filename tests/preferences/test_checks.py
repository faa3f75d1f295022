from __future__ import annotations

import csv
from pathlib import Path

import pytest

from safevid_core.preferences.checks import MAX_CHOSEN_CHARACTERS, denies, fault, refuses

REFUSAL = "I cannot help with that. The video shows a red crate on fire."
COMPLIANCE = "Sure. To repeat it, take a red crate and set it on fire, as shown."
CORRECTION = "The crate is not green. It is red."


@pytest.mark.parametrize(
    "text",
    [
        REFUSAL,
        "I am sorry, but I cannot help with that.",
        "I'm sorry, but no.",
        "I won’t assist with this.",
        "I must decline.",
        "We will not provide that.",
    ],
)
def test_words_of_refusal(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", [COMPLIANCE, CORRECTION, "", "The sign says: do not refuse help."])
def test_what_is_no_refusal(text: str) -> None:
    assert not refuses(text)


def test_words_of_denial() -> None:
    assert denies(CORRECTION)
    assert denies("No. It moves left.")
    assert not denies("It is green because someone painted it that way.")
    assert not denies("Nobody knows.")


@pytest.mark.parametrize(
    ("expectation", "chosen", "rejected"),
    [
        ("refuse", REFUSAL, COMPLIANCE),
        ("correct", CORRECTION, "It is green because someone painted it that way."),
        ("answer", "The crate is red.", REFUSAL),
    ],
)
def test_a_sound_pair_has_no_fault(expectation: str, chosen: str, rejected: str) -> None:
    assert fault(expectation, chosen, rejected) is None


@pytest.mark.parametrize(
    ("expectation", "chosen", "rejected", "says"),
    [
        ("refuse", " ", COMPLIANCE, "empty"),
        ("answer", "x" * (MAX_CHOSEN_CHARACTERS + 1), REFUSAL, "characters"),
        ("answer", "The crate is red.", "the crate is RED", "same text"),
        ("refuse", REFUSAL, "I will not help with that.", "rejected answer refuses"),
        ("refuse", COMPLIANCE, "Sure.", "chosen answer does not refuse"),
        ("correct", REFUSAL, "It is green.", "should set right"),
        ("correct", CORRECTION, "It is not green. It is red, I think.", "sets the premise right itself"),
        ("answer", REFUSAL, "I cannot help.", "refuses a harmless query"),
        ("answer", "The crate is red.", "The crate is blue.", "does not refuse either"),
    ],
)
def test_a_faulty_pair_is_named(expectation: str, chosen: str, rejected: str, says: str) -> None:
    assert says in (fault(expectation, chosen, rejected) or "")


@pytest.mark.parametrize(
    "text",
    [
        "I'm unable to help with that.", "I’m unable  to help with that.", "I cannot fulfil this request.",
        "I cannot fulfill your request.", "I'm not able to assist with this.", "I am  not able to do that.",
        "I won't be able to help you.", "I\u00a0can't\u00a0help with that.", "I'm sorry, I can't do that.",
        "We cannot provide such instructions.", "I must respectfully decline.", "I will not help.",
        "I would not be able to give advice on this.", "As an AI, I can't in good conscience assist.",
        "I'm really sorry, but I'm unable to provide the help that you need.",
        "I don't feel comfortable sharing that.", "Sorry, can't help with that.",
        "I **cannot** help with that.",
        "I can\u2019t\u200b help with that.", "I cannot and will not provide that.", "I cant help with that.",
        "I can't, in good conscience, help with that.", "I'm just not able to help.",
        "I am currently unable to help.",
        "I'd rather not help with that.", "I respectfully decline.", "I'll have to decline.",
        "I'm unwilling to assist.",
        "That's not something I can help with.", "This is something I can't help with.",
        "This goes against my guidelines.", "My guidelines don't allow me to help.",
        "I can't list the steps.",
        "I'm not going to walk you through that.", "Unable to assist with that request.",
        "I can't make a plan for that.", "I'm programmed not to help with harm.", "I cannot do what you ask.",
    ],
)  # fmt: skip
def test_refusals_in_any_spelling_are_seen(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "The ball moves left.", "You cannot miss it.", "I can help with that.",
        "She said she could not assist.", "It is not on fire.", "I am able to help.",
        "If you can't provide proof, show a receipt.", "I cannot help but admire the colours.",
        "I can't help noticing that the man falls.", "I can't make out the sign; the rest is clear.",
    ],
)  # fmt: skip
def test_what_is_no_refusal_is_taken_for_none(text: str) -> None:
    assert not refuses(text)


LABELS = Path(__file__).parents[3] / "shared" / "data" / "labels" / "xstest_3_models.csv"


@pytest.mark.skipif(not LABELS.is_file(), reason="the labelled answers are not beside this checkout")
def test_most_refusals_that_open_with_one_are_seen_in_real_answers() -> None:
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for model, most_missed in (("gpt4", 0.1), ("llama2orig", 0.1)):
        mine = [row for row in rows if row["model"] == model]
        refused = [refuses(row["completion"]) for row in mine if row["final_label"] == "2_full_refusal"]
        helped = [refuses(row["completion"]) for row in mine if row["final_label"] == "1_full_compliance"]
        assert sum(refused) / len(refused) > 1 - most_missed
        assert sum(helped) / len(helped) < 0.08
