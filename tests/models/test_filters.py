"""A provider's filter is a refusal in every dialect: asked once, counted, handed on to the second model."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import pytest

from safevid_core.models.filters import is_filter_error, is_filter_stop
from safevid_core.models.llm import PROVIDER_REFUSAL, ChatRequest, Gateway
from safevid_core.models.providers import text_of
from safevid_core.settings import TextModel
from tests.models.chat_server import ChatServer, says, send

# Status and body as each provider sends them.
ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "openai": (400, {"error": {"code": "content_policy_violation", "message": "Your request was rejected"}}),
    "azure behind a proxy": (400, {"error": {"message": "The response was filtered due to the prompt triggering "
        "Azure OpenAI's content management policy.", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    "azure, code lost": (400, {"error": {"message": "litellm.BadRequestError: AzureException - The response was "
        "filtered due to the prompt triggering Azure OpenAI's content management policy", "code": "400"}}),
    "dashscope": (400, {"error": {"code": "data_inspection_failed", "type": "data_inspection_failed",
        "message": "Input data may contain inappropriate content."}}),
    "dashscope, native": (400, {"code": "DataInspectionFailed", "message": "Output data may contain "
        "inappropriate content.", "request_id": "1"}),
    "deepseek": (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error",
        "param": None, "code": "invalid_request_error"}}),
    "zhipu": (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    "openrouter": (403, {"error": {"code": 403, "message": "Your chosen model requires moderation and your input "
        "was flagged for \"violence\"", "metadata": {"reasons": ["violence"], "flagged_input": "how to"}}}),
    "xai": (403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines. "
        "Failed check: SAFETY_CHECK_TYPE_VIOLENCE"}),
    "moonshot": (400, {"error": {"type": "content_filter", "message": "The request was rejected because it was "
        "considered high risk"}}),
    "volcengine": (400, {"error": {"code": "InputTextSensitiveContentDetected", "message": "may contain "
        "sensitive information"}}),
    "minimax": (400, {"error": {"message": "input new_sensitive (1026)", "type": "error"}}),
    "stepfun": (451, {"error": {"message": "The content you provided or machine outputted is blocked.",
        "type": "censorship_blocked"}}),
    "bedrock": (400, {"error": {"message": "This request has been blocked by our content filters."}}),
    "azure api management": (403, {"statusCode": 403, "message": "Request failed content safety check."}),
    "anthropic": (400, {"error": {"type": "invalid_request_error", "message": "Output blocked by content "
        "filtering policy"}}),
}  # fmt: skip
HONEST = {
    "a wrong key": (401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}),
    "no permission": (
        403,
        {"error": {"message": "You do not have access to this model", "code": "forbidden"}},
    ),
    "a bad request": (400, {"error": {"message": "max_tokens is too large: 1301", "code": "invalid"}}),
    "a bad parameter at Baidu": (400, {"error_code": 336003, "error_msg": "the role of message is invalid"}),
    "too fast": (429, {"error": {"message": "rate limit; see the content_filter docs", "code": "rate"}}),
}
STOPS = [
    "content_filter", "safety", "SAFETY", "CONTENT_FILTER", "REFUSAL", "prohibited_content", "PROHIBITED_CONTENT",
    "BLOCKLIST", "RECITATION", "SPII", "sensitive", "guardrail_intervened", "FinishReason.SAFETY",
    "content-filter", "IMAGE_SAFETY", "FINISH_REASON_SAFETY", "content_moderation", "policy_violation",
    "input_sensitive", "JAILBREAK", "blocked_by_safety",
]  # fmt: skip


def sends(status: int, body: dict[str, Any]) -> Any:
    return lambda chat, asked, handler: send(handler, status, json.dumps(body, ensure_ascii=False).encode())


def request(server: ChatServer, **second: Any) -> ChatRequest:
    model = TextModel(model="openai/m", api_base=server.url, **second)
    return ChatRequest(model, [{"role": "user", "content": "q"}])


@pytest.mark.parametrize("name", ERRORS)
def test_a_filters_error_is_a_refusal(name: str, gateway: Gateway, server: ChatServer) -> None:
    server.queue(sends(*ERRORS[name]))
    for _ in range(2):  # the second run does not ask again
        (answer,) = gateway.ask_many([request(server)], asset="x")
        assert (answer.outcome, answer.reason) == ("undecidable", PROVIDER_REFUSAL)
    assert len(server.seen) == 1
    assert gateway.spend("x").refused == 1


@pytest.mark.parametrize("name", ["dashscope", "openrouter"])
def test_the_second_model_is_asked_after_a_filters_no(
    name: str, gateway: Gateway, server: ChatServer
) -> None:
    server.queue(sends(*ERRORS[name]), says("as it should be"))
    second = TextModel(model="openai/other", api_base=server.url)
    (answer,) = gateway.ask_many([request(server, second=second)], asset="x")
    assert (answer.text, answer.model) == ("as it should be", "openai/other")


@pytest.mark.parametrize("name", HONEST)
def test_other_errors_are_none(name: str) -> None:
    status, body = HONEST[name]
    assert not is_filter_error(status, json.dumps(body))


@pytest.mark.parametrize("reason", STOPS)
def test_half_an_answer_that_a_filter_stopped_is_no_answer(
    reason: str, gateway: Gateway, server: ChatServer
) -> None:
    assert is_filter_stop(reason)
    server.queue(says("First you take", reason))
    (answer,) = gateway.ask_many([request(server)], asset="x")
    assert (answer.text, answer.outcome, answer.reason) == (None, "undecidable", PROVIDER_REFUSAL)


@pytest.mark.parametrize("reason", ["stop", "length", "end_turn", "tool_calls", "STOP", "MAX_TOKENS", ""])
def test_other_finish_reasons_are_none(reason: str) -> None:
    assert not is_filter_stop(reason)


@pytest.mark.parametrize(
    "reason",
    ["network_error", "error", "insufficient_system_resource", "ERROR", "abort", "repetition", "incomplete",
     "MALFORMED_RESPONSE", "time_limit", "userStopped", "a reason of tomorrow"],
)  # fmt: skip
def test_half_an_answer_that_the_provider_broke_off_is_none(
    reason: str, gateway: Gateway, server: ChatServer
) -> None:
    server.queue(says("First you take", reason))
    (answer,) = gateway.ask_many([request(server)], asset="x")
    assert (answer.text, answer.outcome) == (None, "failed")
    assert "broke off" in answer.reason


@pytest.mark.parametrize(
    "reason",
    ["stop", "STOP", "end_turn", "stop_sequence", "eos_token", "eosFound", "COMPLETE", "completed", "tool_calls",
     "FinishReason.STOP", "FINISH_REASON_STOP", "", None, "length", "MAX_TOKENS", "model_context_window_exceeded",
     "max_new_tokens"],
)  # fmt: skip
def test_a_whole_or_a_cut_answer_is_one(reason: str, gateway: Gateway, server: ChatServer) -> None:
    server.queue(says("Yes.", reason))
    (answer,) = gateway.ask_many([request(server)], asset="x")
    assert (answer.text, answer.outcome) == ("Yes.", "ok")
    assert answer.cut == (
        reason in ("length", "MAX_TOKENS", "model_context_window_exceeded", "max_new_tokens")
    )


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}, "undecidable"),
        ({"output_sensitive": True}, "undecidable"),
        ({"contentFilter": [{"role": "assistant", "level": 0}]}, "undecidable"),
        ({"base_resp": {"status_code": 0}, "output_sensitive": False}, "ok"),
        ({"contentFilter": [{"role": "assistant", "level": 3}]}, "ok"),
    ],
)
def test_fields_beside_half_an_answer_tell_of_a_filter(
    fields: dict[str, Any], outcome: str, gateway: Gateway, server: ChatServer
) -> None:
    message = {"role": "assistant", "content": "First you take"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    server.queue(
        sends(200, {"id": "1", "object": "chat.completion", "model": "m", "choices": choices, **fields})
    )
    (answer,) = gateway.ask_many([request(server)], asset="x")
    assert answer.outcome == outcome
    assert (answer.text is None) == (outcome != "ok")


def test_an_error_of_the_choice_breaks_its_answer_off(gateway: Gateway, server: ChatServer) -> None:
    message = {"role": "assistant", "content": "First you take"}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": message,
        "error": {"code": 502, "message": "gone"},
    }
    server.queue(sends(200, {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}))
    (answer,) = gateway.ask_many([request(server)], asset="x")
    assert (answer.text, answer.outcome) == (None, "failed")


def test_content_in_parts_is_their_text_without_thoughts() -> None:
    parts = [
        {"type": "thinking", "text": "hm"},
        {"type": "text", "text": "Yes"},
        {"type": "text", "text": "."},
    ]
    assert text_of(parts) == "Yes."
    assert text_of("Yes.") == "Yes."
    assert text_of(None) is None
