"""Settings of automation: the sensor that keeps scenes up to date."""

from __future__ import annotations

from pydantic import Field

from safevid_core.settings.group import Group


class AutomationSettings(Group):
    """How the sensor `changed_scenes` asks for runs."""

    retry_minutes: float = Field(
        default=30.0,
        gt=0,
        description="Minutes until the sensor `changed_scenes` asks again for a scene that two runs in a row "
        "left as it was: failed, cancelled, or with requests unanswered. Ours.",
    )
