"""Counts and costs of questions, and the progress of a round of questions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Spend:
    """Counts and cost of the questions of a process.

    Attributes:
        calls: Calls that were made.
        usable: Calls with a usable answer.
        cached: Questions that the ledger answered.
        failed: Questions without a usable answer.
        refused: Those of them that the provider refused.
        tokens_in: Tokens of the questions.
        tokens_out: Tokens of the answers.
        cost_usd: Cost of the calls in USD.
        seconds: Wall-clock time spent asking.
    """

    calls: int = 0
    usable: int = 0
    cached: int = 0
    failed: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))

    @property
    def asked(self) -> bool:
        """Whether there was any question."""
        return bool(self.calls or self.cached or self.failed)

    @property
    def calls_per_second(self) -> float:
        return self.calls / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """Return the figures for the metadata of an asset."""
        return {
            "done": self.usable + self.cached,
            "cached": self.cached,
            "failed": self.failed,
            "provider_refusals": self.refused,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost_usd": round(self.cost_usd, 6),
            "calls_per_second": round(self.calls_per_second, 2),
        }

    def __str__(self) -> str:
        return (
            f"{self.cached} cached, {self.failed} failed, {self.tokens_in + self.tokens_out} tokens, "
            f"{self.cost_usd:.4f} USD, {self.calls_per_second:.1f} calls/s"
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one round of questions.

    Attributes:
        asset: The asset that asks.
        total: Number of distinct questions.
        cached: Number of questions that the ledger answered.
        spent: Counts and cost of the other questions so far.
    """

    asset: str
    total: int
    cached: int
    spent: Spend = Spend()

    def plus(self, spent: Spend, seconds: float) -> Progress:
        """Return the progress with more counts and costs, `seconds` after the start."""
        return replace(self, spent=replace(self.spent + spent, seconds=seconds))

    @property
    def left_s(self) -> float | None:
        """Estimated seconds left at the rate so far. None before the first call."""
        rate = self.spent.calls_per_second
        return max(self.total - self.cached - self.spent.calls, 0) / rate if rate else None

    def __str__(self) -> str:
        spent, left = replace(self.spent, cached=self.cached), self.left_s
        return (
            f"{self.asset}: {self.cached + spent.calls} of {self.total} done, {spent}, "
            f"{'unknown' if left is None else timedelta(seconds=round(left))} left"
        )
