"""Details of a chosen response that the description of its clip does not bear out, found by patterns.

A detail is a colour or a number. It is borne out if the description, the query or the intent of the query
holds it. A direction of motion is compared with the one that the description states. Patterns see no other
claim: a response may invent an object, and no pattern finds that. So a share is no error rate, but it says
where to look. Example: the description says "A man in a red coat", and the response "He wears a blue coat".
"""

from __future__ import annotations

import polars as pl

from safevid_core.descriptions.motion_words import described_motion
from safevid_core.descriptions.signals.colours import COLOUR_NAMES

COLOURS = rf"\b(?:{'|'.join((*COLOUR_NAMES, 'gray'))})\b"
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=2
    )
}
# "one" is mostly a pronoun. From three digits on, a number is mostly one to call, a year or a law.
NUMBER = rf"\b(?:{'|'.join(_NUMBERS)}|[0-9]{{1,2}})\b"
_LIST_MARK = r"(?m)^\s*[0-9]{1,2}[.)]"
_INTENT = ("prompt", "target", "premise", "hazard")


def unsupported(pairs: pl.DataFrame) -> pl.DataFrame:
    """Which chosen responses name a detail that nothing they were written from holds: 1 or 0.

    Args:
        pairs: Columns `pair_id, chosen, description, prompt, target, premise, hazard, criteria, policy`.

    Returns:
        Columns `pair_id, chosen_other_colour, chosen_other_number`. Null if the clip has no description.
    """
    source = pl.concat_str(
        "description",
        *(pl.col(name).fill_null("") for name in _INTENT),
        *(pl.col(name).list.join("\n").fill_null("") for name in ("criteria", "policy")),
        separator="\n",
    )
    return pairs.select(
        "pair_id",
        chosen_other_colour=_beyond(_colours(pl.col("chosen")), _colours(source)),
        chosen_other_number=_beyond(_numbers(pl.col("chosen")), _numbers(source)),
    )


def other_motion(pairs: pl.DataFrame) -> pl.DataFrame:
    """Which chosen responses state another direction of motion than the description: 1 or 0.

    Args:
        pairs: Columns `pair_id, chosen, description`.

    Returns:
        Columns `pair_id, chosen_other_motion`. Null unless both state exactly one direction.
    """
    values = [
        None if described is None or said is None else float(described != said)
        for described, said in (
            (described_motion(description or ""), described_motion(chosen))
            for description, chosen in pairs.select("description", "chosen").iter_rows()
        )
    ]
    return pairs.select("pair_id", pl.Series("chosen_other_motion", values, dtype=pl.Float64))


def _beyond(said: pl.Expr, held: pl.Expr) -> pl.Expr:
    """1 if a list holds what another one lacks, else 0. Null if the other one is null."""
    return (said.list.set_difference(held).list.len() > 0).cast(pl.Float64)


def _colours(text: pl.Expr) -> pl.Expr:
    found = text.str.to_lowercase().str.extract_all(COLOURS)
    return found.list.eval(pl.element().replace({"gray": "grey"}))


def _numbers(text: pl.Expr) -> pl.Expr:
    plain = text.str.to_lowercase().str.replace_all(_LIST_MARK, "")
    return plain.str.extract_all(NUMBER).list.eval(pl.element().replace(_NUMBERS))
