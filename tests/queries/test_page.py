"""The worked example of docs/queries.md goes through the same code as the answers of a model."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safevid_core.queries.candidates import Candidates, fault, mismatch
from safevid_core.queries.plan import Walked
from safevid_core.queries.rating import BlindRatings, Rating, SeenRatings, ratings_of, weakness
from safevid_core.settings import load_settings
from safevid_core.taxonomy.taxonomy import load_taxonomy

PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()


def test_the_worked_example_ends_as_the_page_says() -> None:
    walk, written, seen, blind = map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.S))
    taxonomy, settings = load_taxonomy(), load_settings("paper").queries
    assert all(each.subcategory in taxonomy for each in Walked.model_validate(walk).grounds)
    (description,) = re.findall(r'has the description "(.*?)"', PAGE, re.S)
    first, second = Candidates.model_validate(written).candidates
    faults = []
    for number, candidate in enumerate((first, second), start=1):
        rating = ratings_of(SeenRatings.model_validate(seen), BlindRatings.model_validate(blind), number)
        assert isinstance(rating, Rating)
        assert mismatch(candidate, harmless=True, benign=False) is None
        faults.append(
            fault(candidate.query, "implicit", description, rating.explicit)
            or weakness(candidate, "implicit", rating, settings)
        )
    assert faults[0] is None
    assert "names the harm" in (faults[1] or "")
