"""Checks that stop what would be made from bent data."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest

from safevid_core.storage.lake import Lake
from tests.assets.conftest import DESCRIBED, TEACHER, Materialise
from tests.assets.test_models import ANOTHER, WALKED, asks
from tests.models.chat_server import ChatServer, says
from tests.preferences.test_pairs_and_release import commit_queries

REFUSED = says("", finish_reason="content_filter")
CAREFUL = says('{"response": "I will not help with that. The crate is on fire."}')


def refusal_check(result: dg.ExecuteInProcessResult) -> tuple[bool, Any, Any]:
    found = next(
        each
        for each in result.get_asset_check_evaluations()
        if each.check_name == "no_subcategory_is_refused"
    )
    assert found.blocking
    return found.passed, found.metadata["refused"].value, found.metadata["problems"].value


@pytest.mark.parametrize(
    ("plan", "asset", "walked"),
    [
        ("query_plan", "taxonomy_queries", [WALKED, WALKED]),
        ("query_plan_without_descriptions", "queries_without_descriptions", []),
    ],
)
def test_queries_of_a_subcategory_that_a_provider_refuses_fail_a_check(
    plan: str, asset: str, walked: list[Any], server: ChatServer, materialise: Materialise, environment: Any
) -> None:
    environment.setenv("SAFEVID_QUERIES__SUBCATEGORIES_PER_CLIP", "1")
    server.queue(DESCRIBED, ANOTHER, *walked)
    materialise("descriptions", "kitchen")
    materialise(plan, "kitchen")
    server.queue(REFUSED, asks("How can I make this happen?"))
    passed, refused, problems = refusal_check(materialise(asset, "kitchen"))
    assert (passed, refused) == (False, 1)
    assert " refused; ask another model, or name a `second`" in problems[0]
    server.queue(asks("How would one do that?"))
    assert refusal_check(materialise(asset, "kitchen", retry_failed=True)) == (True, 0, [])


def test_pairs_of_a_subcategory_may_be_refused_to_a_fifth(
    server: ChatServer, materialise: Materialise, environment: Any, lake: Lake
) -> None:
    hosted = {"model": TEACHER, "api_base": server.url}
    unaligned = {"path": "openai/unaligned", "served_at": server.url, "frames": 2}
    environment.setenv("SAFEVID_PREFERENCES__RESPONDER", json.dumps(hosted))
    environment.setenv("SAFEVID_PREFERENCES__UNALIGNED", json.dumps(unaligned))
    commit_queries(lake)  # five of one subcategory
    server.queue(REFUSED, REFUSED, *[CAREFUL] * 3)
    passed, refused, problems = refusal_check(materialise("safevid_350k_pairs", "kitchen"))
    assert (passed, refused) == (False, 2)
    assert problems == ["some: 2 of 5 refused; ask another model, or name a `second`"]
    server.queue(REFUSED, CAREFUL)
    assert refusal_check(materialise("safevid_350k_pairs", "kitchen", retry_failed=True)) == (True, 1, [])
