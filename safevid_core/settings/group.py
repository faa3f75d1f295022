"""The base of every group of settings, and the error for settings that cannot be used.

Each description ends in its source: ``Paper.`` or ``Paper, section 4.1.`` for what the paper (arXiv
2505.11926) states, ``Ours.`` for everything else. The `paper` profile holds the paper's values.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from safevid_core.contracts.errors import SafeVidError

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, or a rate: 0 to 1."""


class SettingsError(SafeVidError, ValueError):
    """A settings file or variable that cannot be used; the message names the key and what to do."""


class Group(BaseModel):
    """Settings that belong together. A group cannot be changed, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
