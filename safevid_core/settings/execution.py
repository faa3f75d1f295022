"""Settings of execution: the processes in which stages run."""

from __future__ import annotations

from pydantic import Field

from safevid_core.settings.group import Group


class ExecutionSettings(Group):
    """How the batches of a stage run."""

    processes: int | None = Field(
        None,
        ge=1,
        description="Processes in which a stage's batches are made; None means one for each core. Ours.",
    )
