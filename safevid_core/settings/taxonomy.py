"""Settings of the taxonomy and the scene categories."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from safevid_core.settings.group import Group


class TaxonomySettings(Group):
    """Which taxonomy and which scenes are used."""

    path: Path | None = Field(
        None, description="YAML file with a taxonomy of your own. None means the package's. Ours."
    )
    scenes_path: Path | None = Field(
        None, description="YAML file with scene categories of your own. None means the package's. Ours."
    )
    subcategories: tuple[str, ...] | None = Field(
        None, description="Ids of the subcategories in use. None means all of the file. Ours."
    )
    expected_scenes: int | None = Field(
        None,
        ge=1,
        description="The number of scenes that the file must have, 30 in the paper. None means any. "
        "Paper, section 3.1.",
    )
    expected_challenge: int | None = Field(
        None,
        ge=0,
        description="The number of challenge categories that the file must have, 7 in the paper. None means "
        "any. Paper, section 4.",
    )
