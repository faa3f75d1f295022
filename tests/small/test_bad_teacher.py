"""SmolLM2 behind `transformers serve` as the hosted teacher: a real language model that is a bad teacher.

It breaks JSON, rambles and stops at its limit. No stage may crash on it, take a broken answer for a good one,
or pay for a question twice. Every row ends with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import PAIRS, QUERY_PLAN, TAXONOMY_QUERIES
from safevid_core.descriptions.reconciliation import Reconciled
from safevid_core.models.llm import Gateway
from safevid_core.models.structured import read_as
from safevid_core.preferences.responses import SafeResponse
from safevid_core.queries.candidates import Candidates
from safevid_core.queries.plan import Walked
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from tests.descriptions.candidates import BALL, CRATE, DESCRIBERS, SCENE, commit_candidates, commit_corpus
from tests.preferences.test_pairs_and_release import QUERIES, commit_queries
from tests.queries import described
from tests.queries.test_generation import commit
from tests.stages import run_stage, tools_of
from tests.transformers_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_SUBCATEGORIES = ["object_recognition", "false_premise", "arson_and_dangerous_fire"]


class Server:
    """The server's address, and the number of chat requests that reached it."""

    def __init__(self, url: str, log: Path, folder: Path) -> None:
        self.url, self._log, self.folder = url, log, folder

    @property
    def requests(self) -> int:
        return self._log.read_text().count("[Request received]")


@pytest.fixture(scope="module")
def server(language_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with serving(log, threads=2) as url:
        yield Server(url, log, language_folder)


def settings_with(server: Server, root: Path, *roles: str) -> Settings:
    """The pocket profile whose text models of some roles are SmolLM2. Example of a role: `queries.asker`."""
    teacher: dict[str, Any] = {"model": f"openai/{server.folder}", "family": "smollm"}
    teacher |= {"api_base": server.url, "max_tokens": 48}
    overrides: dict[str, Any] = {
        "root": str(root),
        "taxonomy": {"subcategories": _SUBCATEGORIES},
        "models": {"timeout_s": 900, "max_attempts": 2, "concurrency": 2},
        "queries": {"subcategories_per_clip": 2},
    }
    for role in roles:
        room, name = role.split(".")
        overrides.setdefault(room, {})[name] = teacher
    return load_settings("pocket", overrides=overrides)


def make(settings: Settings, lake: Lake, name: str, gateway: Gateway) -> tuple[StageRows, list[str]]:
    """What a stage makes of the kitchen, uncommitted, and its units."""
    tools = tools_of(settings, lake, gateway)
    plan = tools.registry[name].plan(tools, SCENE)
    return plan.make(plan.units), list(plan.units)


def check(made: StageRows, units: Sequence[str]) -> None:
    """Every unit has one outcome, and one line of reason if it is not ok."""
    outcomes = list(made.outcomes)
    assert sorted(unit for unit, _, _ in outcomes) == sorted(units)
    for _, outcome, reason in outcomes:
        print(outcome, reason)
        assert (outcome == "ok") == (reason == "")
        assert "\n" not in reason
    assert (made.rows.height > 0) == ("ok" in {outcome for _, outcome, _ in outcomes})


def check_served(
    made: StageRows, gateway: Gateway, schema: type[BaseModel], column: str = "request_key"
) -> None:
    """Every row comes from an answer that the schema reads."""
    stored = gateway.ledger.answers(made.rows[column].to_list())
    for key in made.rows[column]:
        read_as(schema, str(stored[key].text))


def never_paid_twice(settings: Settings, lake: Lake, name: str, server: Server, first: StageRows) -> None:
    """A run in a new process's place gives the same rows and sends nothing."""
    before = server.requests
    gateway = Gateway(settings)
    again, _ = make(settings, lake, name, gateway)
    assert (gateway.spend().calls, server.requests) == (0, before)
    assert again.rows.equals(first.rows)
    assert sorted(again.outcomes) == sorted(first.outcomes)


def test_descriptions(server: Server, tmp_path: Path) -> None:
    settings, lake = settings_with(server, tmp_path, "descriptions.reconciler"), Lake(tmp_path, "pocket")
    commit_corpus(lake, ("a", "b"))
    for describer in (*DESCRIBERS, "signal"):
        commit_candidates(lake, describer, {"a": CRATE, "b": BALL})
    gateway, before = Gateway(settings), server.requests
    made, units = make(settings, lake, "descriptions", gateway)
    check(made, units)
    check_served(made, gateway, Reconciled)
    # An answer that cannot be read is sent back once.
    assert server.requests - before == gateway.spend().calls <= 2 * len(units)
    never_paid_twice(settings, lake, "descriptions", server, made)


def test_queries(server: Server, tmp_path: Path) -> None:
    settings, lake = settings_with(server, tmp_path, "queries.asker"), Lake(tmp_path, "pocket")
    commit(lake, [{**row, "twin_group": None} for row in described((SCENE,))[:1]])
    gateway, before = Gateway(settings), server.requests
    walked, clips = make(settings, lake, QUERY_PLAN.name, gateway)
    check(walked, clips)
    check_served(walked, gateway, Walked)
    assert server.requests - before == gateway.spend().calls <= 2 * len(clips)
    never_paid_twice(settings, lake, QUERY_PLAN.name, server, walked)
    # The plan of a good asker, for which the bad one then writes.
    run_stage(settings_with(server, tmp_path), lake, QUERY_PLAN.name, SCENE)
    before, gateway = server.requests, Gateway(settings)
    asked, cells = make(settings, lake, TAXONOMY_QUERIES.name, gateway)
    check(asked, cells)
    check_served(asked, gateway, Candidates)
    assert server.requests - before <= 2 * len(cells)
    never_paid_twice(settings, lake, TAXONOMY_QUERIES.name, server, asked)


def test_chosen_responses(server: Server, tmp_path: Path) -> None:
    settings, lake = settings_with(server, tmp_path, "preferences.responder"), Lake(tmp_path, "pocket")
    commit_queries(lake, {name: QUERIES[name] for name in ("fire-implicit", "fire-colour")})
    gateway, before = Gateway(settings), server.requests
    made, queries = make(settings, lake, PAIRS.name, gateway)
    check(made, queries)
    check_served(made, gateway, SafeResponse, "chosen_request_key")
    assert 2 <= server.requests - before <= 2 * len(queries)
    never_paid_twice(settings, lake, PAIRS.name, server, made)
