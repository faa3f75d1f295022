"""Settings of storage: the size of caches."""

from __future__ import annotations

from pydantic import Field

from safevid_core.settings.group import Group


class StorageSettings(Group):
    """How much is kept beside the tables."""

    frame_cache_gb: float = Field(
        2.0,
        ge=0,
        description="Most that the cache of decoded frames may hold, in GB; 0 turns it off. Ours.",
    )
