"""Drafts are no answers: what counts is what follows the last closing mark, and an open mark is no answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from safevid_core.models.filters import is_cut
from safevid_core.models.generation import _decoded
from safevid_core.models.llm import ChatRequest, Gateway, ask_structured
from safevid_core.models.structured import UnreadableAnswer, json_regions, read_as
from safevid_core.models.thinking import answer_of, whole_sentences
from safevid_core.settings import TextModel
from tests.models.chat_server import ChatServer, says

MARKS = [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"), ("<Thought>", "</Thought>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|channel>thought\n", "<channel|>"),
    ("<unused94>thought\n", "<unused95>"), ("<antThinking>", "</antThinking>"), ("<cot>", "</cot>"),
    ("<inner_monologue>", "</inner_monologue>"), ("<|thinking|>", "<|/thinking|>"),
    ("< think >", "</ think >"),
    ("<mm:think>", "</mm:think>"), ("<longcat_think>", "</longcat_think>"), ("<rationale>", "</rationale>"),
    ("<inner_thoughts>", "</inner_thoughts>"), ("<internal>", "</internal>"), ("<|thought|>", "<|/thought|>"),
    ("<｜think｜>", "<｜/think｜>"), ("&lt;think&gt;", "&lt;/think&gt;"),
    ("<reasoning_content>", "</reasoning_content>"), ("<seed:think>", "</seed:think>"),
]  # fmt: skip
words = st.text(alphabet="abc .,!?\n", max_size=40)


@pytest.mark.parametrize(("opens", "closes"), MARKS)
@given(draft=words, answer=words.map(str.strip).filter(bool))
def test_only_what_follows_the_last_closing_mark_counts(
    opens: str, closes: str, draft: str, answer: str
) -> None:
    assert answer_of(f"{opens}{draft}{closes}{answer}") == answer
    assert answer_of(f"{draft}{closes}{answer}") == answer  # the server kept the opening mark
    assert answer_of(f"{opens}{draft}{closes}first{opens}{draft}{closes}\n{answer}") == answer
    assert answer_of(f"Well. {opens}{draft}{closes}{answer}") == answer
    assert answer_of(f"{opens}{draft}") is None
    assert answer_of(f"{opens}{draft}{closes}{answer}{opens}{draft}") is None
    assert answer_of(answer) == answer


def test_channels_whose_tokens_a_server_dropped_are_told_by_their_names() -> None:
    assert answer_of("analysisWe see a man.assistantfinalNo.") == "No."
    assert answer_of("analysisWe see a man.assistantcommentaryHm.assistantfinal No.") == "No."
    assert answer_of("analysisWe see a man") is None
    for text in ("analysis of the clip", "Analysis: No.", "The assistant says so in its final word."):
        assert answer_of(text) == text


@pytest.mark.parametrize(
    "text", ["<|begin_of_solution|>No.<|end_of_solution|>", "No.<|return|>", "No.<|im_end|>\n"]
)
def test_tokens_around_an_answer_without_thinking_are_taken_off(text: str) -> None:
    assert answer_of(text) == "No."
    assert answer_of(f"<think>draft</think>{text}") == "No."


def test_a_local_models_thinking_tokens_stay_until_its_draft_is_taken_off() -> None:
    vocabulary = {"draft": 0, "No": 1, "[UNK]": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")), eos_token="<|end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    opens, closes, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<|end|>"])
    assert answer_of(_decoded(tokenizer, [opens, 0, closes, 1, end])) == "No"
    assert answer_of(_decoded(tokenizer, [opens, 0])) is None
    assert _decoded(tokenizer, [1, end]) == "No"


def test_a_mark_in_code_is_a_word_about_a_mark() -> None:
    text = "The tag `<think>` opens a draft and `</think>` closes it."
    assert answer_of(text) == text
    assert answer_of("```\n<think>\n```\nThat is how.") == "```\n<think>\n```\nThat is how."


@pytest.mark.parametrize("before", ["", "<think>"])
@pytest.mark.parametrize(
    "draft",
    ["I need a ``` fence.\n", "```json\n{}\n", "So `a.", "The mark `</think>` ends it.", "`x` and ```y"],
)
def test_code_in_a_draft_hides_no_end_of_the_draft(before: str, draft: str) -> None:
    answer = "```json\n{}\n```"
    assert answer_of(f"{before}{draft}</think>\n{answer}") == answer


@pytest.mark.parametrize(
    "around",
    [
        "<answer>{}</answer>",
        "<answer>\n{}\n",
        "<|START_RESPONSE|>{}<|END_RESPONSE|>",
        "<|begin_of_solution|>{}<|end_of_solution|>",
    ],
)
def test_the_marks_around_an_answer_are_no_part_of_it(around: str) -> None:
    assert answer_of(f"<think>draft</think>{around.format('No.')}") == "No."
    assert answer_of("<answer>No.</answer>") == "<answer>No.</answer>"  # without a draft it is a text


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    found = answer_of(text)
    assert found is None or found in text


def test_a_cut_text_keeps_its_whole_sentences() -> None:
    assert whole_sentences("A man runs. He trips on a") == "A man runs."
    assert whole_sentences('He said "no." Then he') == 'He said "no."'
    assert whole_sentences("A man in a red") == ""
    assert whole_sentences("A man runs.\n\n2. A d") == "A man runs."
    assert whole_sentences("Dr. Smith goes to") == ""
    assert whole_sentences("He weighs 80. Then") == "He weighs 80."
    assert whole_sentences("**Done.** Then") == "**Done.**"
    assert whole_sentences("一个人在跑。他跌") == "一个人在跑。"


@pytest.mark.parametrize(
    "told",
    [
        "length", "MAX_TOKENS", "max_tokens", "FinishReason.MAX_TOKENS", "model_length", "max_output_tokens",
        "FINISH_REASON_MAX_TOKENS", "model_context_window_exceeded", "max_new_tokens",
    ],
)  # fmt: skip
def test_a_cut_is_told_in_any_spelling(told: str) -> None:
    assert is_cut(told)
    assert not is_cut("stop")


class Said(BaseModel):
    text: str


def test_several_values_that_differ_are_unreadable() -> None:
    assert read_as(Said, 'First {"text": "a"}, so {"text": "a"}.').text == "a"
    with pytest.raises(UnreadableAnswer, match="2 objects that differ"):
        read_as(Said, 'Draft: {"text": "a"}\nFinal: {"text": "b"}')


@pytest.mark.parametrize(
    "own", ['{"text": "own",}', '{"text": "ow\nn"}', '{"text": "own', '{"text": "a", "text": "own"}']
)
def test_a_draft_never_wins_because_the_answer_is_broken(own: str) -> None:
    for said in (f'Draft: {{"text": "draft"}}\nFinal: {own}', f'{own}\nnot {{"text": "draft"}}', own):
        with pytest.raises(UnreadableAnswer):
            read_as(Said, said)


def test_what_is_inside_a_broken_object_is_no_value_of_the_text() -> None:
    broken = '{"items": [{"text": "inner"},], "ok": False}'
    with pytest.raises(UnreadableAnswer):
        read_as(Said, broken)
    assert list(json_regions(f'{broken} and {{"text": "own"}}')) == [
        (broken, False),
        ('{"text": "own"}', True),
    ]
    assert read_as(Said, '{not json} {"text": "own"}').text == "own"


# ------------------------------------------------------------------------------------- at the gateway


def ask(gateway: Gateway, server: ChatServer, text: str = "q") -> ChatRequest:
    model = TextModel(model="openai/m", api_base=server.url)
    return ChatRequest(model, [{"role": "user", "content": text}])


def test_an_open_draft_is_never_served_and_never_bought_twice(gateway: Gateway, server: ChatServer) -> None:
    server.queue(says("I would say yes. <think>Or rather"))
    request = ask(gateway, server)
    for _ in range(2):
        (answer,) = gateway.ask_many([request], asset="x")
        assert (answer.text, answer.outcome) == (None, "failed")
        assert "gave no answer" in answer.reason
    assert server.paid["q"] == 1


def test_a_draft_before_a_lone_closing_mark_is_not_the_answer(gateway: Gateway, server: ChatServer) -> None:
    server.queue(says('{"text": "draft"}</think>{"text": "answer"}'))
    ((said, _),) = ask_structured(gateway, [ask(gateway, server)], Said, asset="x")
    assert said == Said(text="answer")


def test_a_cut_answer_is_asked_for_again_once_and_then_fails(gateway: Gateway, server: ChatServer) -> None:
    server.queue(says('{"text": "long"} and so', "length"), says('{"text": "short"}'))
    ((said, answer),) = ask_structured(gateway, [ask(gateway, server)], Said, asset="x")
    assert said == Said(text="short")
    server.queue(says('{"text": "long"} and', "length"), says('{"text": "longer"} and', "length"))
    ((said, answer),) = ask_structured(gateway, [ask(gateway, server, "other")], Said, asset="x")
    assert said is None
    assert "cut off" in answer.reason
