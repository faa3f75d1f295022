"""Settings of the allocation: how the pairs of a target are distributed over the strata of the plan."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from safevid_core.settings.group import Group

Axis = Literal["stratum", "scene", "subcategory", "style", "expectation"]
Principle = Literal["helpful", "honest", "harmless"]

_GROUND_SHARE: dict[Principle, float] = {"helpful": 0.9, "honest": 0.9, "harmless": 0.15}


class AllocationSettings(Group):
    """How the pairs of `datasets.target_pairs` are distributed.

    The even portion of a stratum is its share of the target by the number of clips of its scene, by
    `queries.mix` and by `queries.styles`. Floors and caps are shares of even portions.
    """

    benign_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the benign counterparts among the pairs of harmless subcategories. Ours.",
    )
    floors: dict[Axis, float] = Field(
        {"scene": 0.8, "subcategory": 0.5},
        description="The least that each scene, subcategory, style, expectation or stratum gets, as a share "
        "of its even portion. Ours.",
    )
    caps: dict[Axis, float] = Field(
        {"scene": 1.25, "subcategory": 2.0, "stratum": 3.0},
        description="The most that each scene, subcategory, style, expectation or stratum gets, as a share "
        "of its even portion. Ours.",
    )
    queries_per_clip: int = Field(
        60,
        ge=1,
        description="Most queries that are asked about a clip, and so the most pairs about it. Ours.",
    )
    survival: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Expected share of asked queries that become pairs of the release. A measured share "
        "replaces it in a later round. Ours.",
    )
    ground_share: dict[Principle, float] = Field(
        dict(_GROUND_SHARE),
        description="Expected share of a scene's clips in which a subcategory of the principle has ground. A "
        "measured number replaces it in a later round. Ours.",
    )
    round: int = Field(
        1,
        ge=1,
        description="Raise it to allocate again by what the table `pair_yield` has measured. An allocation "
        "stays until this number, other settings, the taxonomy or the corpus change. Ours.",
    )

    @field_validator("floors", "caps")
    @classmethod
    def _not_negative(cls, shares: dict[Axis, float]) -> dict[Axis, float]:
        for axis, share in shares.items():
            if share < 0:
                raise ValueError(f"{axis}: {share:g} is negative; give a share of the even portion")
        return shares

    @field_validator("ground_share", mode="before")
    @classmethod
    def _completed(cls, shares: Any) -> Any:
        return {**_GROUND_SHARE, **shares} if isinstance(shares, dict) else shares

    @field_validator("ground_share")
    @classmethod
    def _are_shares(cls, shares: dict[Principle, float]) -> dict[Principle, float]:
        for principle, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{principle}: {share:g} is not a share; give 0 to 1")
        return shares
