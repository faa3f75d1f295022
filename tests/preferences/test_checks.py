from __future__ import annotations

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
