"""What a training has told so far, read while it may still be writing."""

from __future__ import annotations

import json
from typing import Any

from safevid_core.alignment.job import Job
from safevid_core.alignment.progress import PROGRESS_NAME


def logged(job: Job) -> list[dict[str, Any]]:
    """Each step's figures, over all attempts; a last line that is not whole yet is left out."""
    file = job.folder / PROGRESS_NAME
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [json.loads(line) for line in lines]


def steps_logged(job: Job) -> list[int]:
    return [entry["step"] for entry in logged(job) if "loss" in entry]
