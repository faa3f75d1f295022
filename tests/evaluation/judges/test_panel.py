"""Which judges decide, which are for comparison, and how several verdicts become one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judges.judge import Verdict, no_verdict
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.judging.panel import (
    Judged,
    Seat,
    combined,
    judges_itself,
    open_panel,
    panel_of,
    self_judges,
)
from safevid_core.settings import EvaluationSettings, JudgeModel, Settings, load_settings
from tests.evaluation.judges.conftest import asked_plainly, row

GUARD = {"model": "hosted_vllm/meta-llama/Llama-Guard-3-8B"}


def settings_with(**evaluation: Any) -> Settings:
    return load_settings("pocket", overrides={"evaluation": evaluation})


def said(*verdicts: Verdict) -> list[tuple[Seat, Judged]]:
    seats = [Seat(f"rubric:{place}", JUDGES["rubric"], None) for place in range(len(verdicts))]
    return [(seat, Judged(verdict)) for seat, verdict in zip(seats, verdicts, strict=True)]


verdicts = st.one_of(
    st.builds(no_verdict, st.just("will not say")),
    st.builds(
        Verdict,
        st.sampled_from(["refuse", "correct", "answer"]),
        st.booleans(),
        st.sampled_from([True, False, None]),
        st.just("so"),
        st.floats(0, 5) | st.none(),
    ),
)


@settings(deadline=None)
@given(st.lists(verdicts, min_size=2, max_size=6))
def test_the_majority_of_those_that_decide_is_the_verdict(given_: list[Verdict]) -> None:
    found = combined(said(*given_))
    votes = [verdict.success for verdict in given_ if verdict.decided]
    if votes.count(True) == votes.count(False):
        assert not found.decided
        assert found.success is None
        assert found.undecidable
        return
    assert found.success is (votes.count(True) > votes.count(False))
    assert found.expected in [verdict.expected for verdict in given_ if verdict.success is found.success]
    refusals = [verdict.refused for verdict in given_ if verdict.decided and verdict.refused is not None]
    assert found.refused in (None, *refusals)
    assert found.score == given_[0].score


@settings(deadline=None)
@given(verdicts)
def test_one_judge_is_its_own_majority(verdict: Verdict) -> None:
    assert combined(said(verdict)) == verdict


def test_a_tie_names_who_said_what() -> None:
    split = combined(said(Verdict("refuse", True, True), Verdict("refuse", False, False)))
    assert split.undecidable == "the panel is split: rubric:0 success, rubric:1 no success"


def test_the_settings_panel_decides_and_the_other_judges_stand_beside() -> None:
    panel = open_panel(settings_with(judges={"llama_guard": GUARD}))
    assert [[seat.name for seat in group] for group in panel.deciding_groups] == [["rubric"]]
    assert [seat.name for seat in panel.comparison] == ["llama_guard", "string_match"]


def test_one_judge_may_be_asked_of_several_models() -> None:
    found = open_panel(
        settings_with(panel=["rubric", "rubric:b"], judges={"rubric:b": {"model": "openai/b"}})
    )
    models = [seat.model.model for seat in found.deciding_groups[0] if seat.model]
    assert models == ["scripted/judge", "openai/b"]


def test_a_benchmarks_own_judge_decides_what_it_judges() -> None:
    without, with_model = settings_with(), settings_with(judges={"llama_guard": GUARD})
    assert panel_of(without, "llama_guard") == ("rubric",)
    assert panel_of(with_model, "llama_guard") == ("llama_guard",)
    assert panel_of(with_model, None) == ("rubric",)
    panel = open_panel(with_model, "llama_guard")
    assert [seat.name for seat in panel.deciding(row())] == ["llama_guard"]
    assert [seat.name for seat in panel.deciding(asked_plainly())] == ["rubric"]
    assert [seat.name for seat in panel.seats] == ["llama_guard", "rubric", "string_match"]


def test_a_panel_of_guards_is_asked_though_it_declines() -> None:
    panel = open_panel(settings_with(panel=["llama_guard"], judges={"llama_guard": GUARD}))
    assert [seat.name for seat in panel.deciding(asked_plainly())] == ["llama_guard"]


@pytest.mark.parametrize(
    ("evaluation", "named"),
    [
        ({"panel": ["oracle"]}, "'oracle' is not one of"),
        ({"judges": {"oracle": GUARD}}, "'oracle' is not one of"),
        ({"panel": ["wildguard"]}, r"give it one in evaluation\.judges\.wildguard"),
        ({"judge": {**GUARD, "second": GUARD}}, "judge rubric has a second model"),
        ({"panel": []}, "must name one judge"),
        ({"panel": ["rubric", "rubric"]}, "each once"),
        ({"panel": ["rubric", "string_match"]}, "for comparison only"),
        ({"judges": {"rubric": GUARD}}, r"drop evaluation\.judges\.rubric"),
    ],
)
def test_a_panel_that_cannot_sit_is_named(evaluation: dict[str, Any], named: str) -> None:
    with pytest.raises(JudgeError, match=named):
        open_panel(settings_with(**evaluation))


@pytest.mark.parametrize(
    ("name", "model", "family", "same"),
    [
        ("rubric:b", "openai/gpt-9", "gpt", True),
        ("llama_guard", "hosted_vllm/guard", "llama", True),
        ("wildguard", "hosted_vllm/allenai/wildguard", "Mistral", True),
        ("wildguard", "hosted_vllm/allenai/wildguard", "gpt", False),
        ("harmbench", "hosted_vllm/cais/HarmBench-Llama-2-13b-cls", "llama", True),
        ("rubric:b", "openai/o3-mini", "gpt", True),
        ("rubric:b", "azure/chatgpt-4o-latest", "OpenAI", True),
        ("rubric:b", "hosted_vllm/codestral-22b", "mistral", True),
        ("rubric:b", "bedrock/us.writer.palmyra-x5", "palm", False),
    ],
)
def test_every_judge_is_held_against_the_writers(name: str, model: str, family: str, same: bool) -> None:
    judges = {name: {"model": model}}
    found = settings_with(judges=judges, writer_families=[family])
    assert self_judges(found.evaluation) == ({name: family} if same else {})
    if same:
        with pytest.raises(JudgeError, match=rf"evaluation\.judges\.{name}"):
            open_panel(found)
    open_panel(settings_with(judges=judges, writer_families=[family], allow_self_judging=True))


def test_a_judge_whose_family_is_not_known_is_refused_if_writers_are_named() -> None:
    judges = {"rubric:b": {"model": "azure/my-deploy"}}
    open_panel(settings_with(judges=judges))
    with pytest.raises(
        JudgeError, match=r"^evaluation\.judges\.rubric:b: the name 'azure/my-deploy'"
    ) as refusals:
        open_panel(settings_with(judges=judges, writer_families=["gpt"]))
    assert "set evaluation.judges.rubric:b.family" in str(refusals.value)
    open_panel(settings_with(judges=judges, writer_families=["gpt"], allow_self_judging=True))
    judges["rubric:b"]["family"] = "claude"
    open_panel(settings_with(judges=judges, writer_families=["gpt"]))
    judges["rubric:b"]["family"] = "GPT"
    with pytest.raises(JudgeError, match="is of family 'gpt'"):
        open_panel(settings_with(judges=judges, writer_families=["gpt"]))


def test_a_judge_that_is_not_heard_judges_nothing() -> None:
    evaluation = EvaluationSettings(
        judge=JudgeModel(model="openai/gpt-9"),
        panel=("harmbench",),
        judges={"harmbench": JudgeModel(model="openai/other")},
        writer_families=("gpt",),
    )
    assert judges_itself(evaluation) is None
