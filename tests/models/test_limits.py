"""How the limits of a provider are read and kept."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.models.limits import ModelLimits, Window, rate_of_headers, seconds_of
from safevid_core.settings import GatewaySettings


@given(
    limit=st.floats(1, 50),
    amounts=st.lists(st.floats(0.1, 60), min_size=1, max_size=25),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_no_stretch_of_time_holds_more_than_the_limit(limit: float, amounts: list[float]) -> None:
    window, seconds, used = Window(limit, 0.01), 0.01, []
    for amount in amounts:
        while (wait := window.wait_s(amount)) > 0:
            time.sleep(wait)
        window.take(amount)
        used.append((time.monotonic(), amount))
    for start, _ in used:
        held = [amount for at, amount in used if start <= at < start + 0.9 * seconds]
        assert sum(held) <= limit + 1e-6 or len(held) == 1


def test_a_window_without_a_limit_never_waits() -> None:
    window = Window(None)
    window.take(1e9)
    assert window.wait_s(1e9) == 0


def test_a_window_stays_small_however_many_calls_a_minute_it_sees() -> None:
    window = Window(1e9, 60)
    tracemalloc.start()
    for _ in range(20_000):
        window.take(100)
        window.correct(-1)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 100_000


def test_tokens_that_were_not_used_make_room() -> None:
    window = Window(100, 60)
    window.take(90)
    assert window.wait_s(20) > 50
    window.correct(-80)
    assert window.wait_s(20) == 0


@pytest.mark.parametrize(
    ("terms", "questions", "tokens"),
    [({"requests_per_minute": 3}, 7, 1), ({"tokens_per_minute": 100}, 3, 90)],
)
def test_requests_and_tokens_of_the_settings_are_kept(
    terms: dict[str, float], questions: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safevid_core.models.limits.MINUTE_S", 0.2)
    limits = ModelLimits("m", GatewaySettings.model_validate({"terms": {"m": terms}}))

    async def ask() -> None:
        async with limits.admission(tokens):
            pass

    async def ask_all() -> None:
        await asyncio.gather(*(ask() for _ in range(questions)))

    started = time.monotonic()
    asyncio.run(ask_all())
    assert 0.4 <= time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("headers", "rate"),
    [
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
            },
            (500.0, 499.0, 0.12),
        ),
        (
            {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0"},
            (50.0, 0.0, None),
        ),
        ({"x-ratelimit-limit-tokens": "500"}, (None, None, None)),
        ({"x-ratelimit-limit-requests": "many"}, (None, None, None)),
        ({"x-ratelimit-limit-requests": "-1"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_limits_are_read_from_headers(
    headers: dict[str, str], rate: tuple[float | None, float | None, float | None]
) -> None:
    assert rate_of_headers(headers, "requests") == rate


@given(
    st.integers(0, 3),
    st.integers(0, 23),
    st.integers(0, 59),
    st.decimals(0, 59, places=3),
    st.integers(0, 999),
)
def test_durations_are_read(days: int, hours: int, minutes: int, seconds: object, ms: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s{ms}ms"
    expected = days * 86_400 + hours * 3_600 + minutes * 60 + float(str(seconds)) + ms / 1000
    assert seconds_of(text) == pytest.approx(expected)
    assert seconds_of(f"{minutes}m0s") == 60 * minutes


def test_moments_and_plain_numbers_are_read() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)
    assert seconds_of(moment.isoformat()) == pytest.approx(30, abs=1)
    assert seconds_of(moment.strftime("%Y-%m-%dT%H:%M:%SZ")) == pytest.approx(30, abs=1.5)
    assert seconds_of("1.5") == 1.5


@given(st.text())
def test_any_other_text_tells_nothing_and_breaks_nothing(text: str) -> None:
    seconds = seconds_of(text)
    assert seconds is None or 0 <= seconds < float("inf")
