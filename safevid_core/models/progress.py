"""What was asked and paid, and how far a round of asking has come."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Spend:
    """What a process asked and paid.

    Attributes:
        calls: Made, `usable` of them with an answer of use; `cached` questions were answered from the ledger.
        failed: Questions without a usable answer, `refused` of them by the provider.
        seconds: Spent asking, by the wall clock.
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
        """Whether there was any question at all."""
        return bool(self.calls or self.cached or self.failed)

    @property
    def calls_per_second(self) -> float:
        return self.calls / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """The figures for an asset's metadata."""
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
    """How far one batch of questions has come.

    Attributes:
        total: Questions, each counted once.
        cached: Answered from the ledger.
        spent: On the others, so far.
    """

    asset: str
    total: int
    cached: int
    spent: Spend = Spend()

    def plus(self, spent: Spend, seconds: float) -> Progress:
        """With more spent, `seconds` after the start."""
        return replace(self, spent=replace(self.spent + spent, seconds=seconds))

    @property
    def left_s(self) -> float | None:
        """Seconds left at the rate so far; None while there is none."""
        rate = self.spent.calls_per_second
        return max(self.total - self.cached - self.spent.calls, 0) / rate if rate else None

    def __str__(self) -> str:
        spent, left = replace(self.spent, cached=self.cached), self.left_s
        return (
            f"{self.asset}: {self.cached + spent.calls} of {self.total} done, {spent}, "
            f"{'unknown' if left is None else timedelta(seconds=round(left))} left"
        )
