"""Builds the checkpoint of the small profile: SmolLM2's weights, and a tower and projector trained here.

The build has four steps: assemble the model, train the spelling of frames, train the reading of clips through
the frozen language model, and measure on held-out clips what the model sees. Each training stores its state.
A build that was killed goes on from there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safevid_core.models.provenance import RECORD
from safevid_core.pocket.build.samples import draw_samples
from safevid_core.small.accuracy import Sight, measure, verdict
from safevid_core.small.architecture import create
from safevid_core.small.language import NAME, load_language_model, source
from safevid_core.small.reading import Reading, learn_reading
from safevid_core.small.resuming import plan_hash
from safevid_core.small.vision import Spelling, freeze_language, learn_spelling

CHECKPOINT = "llava_next_video"
_STATE = "building"
ABOUT = (
    f"The language model is the published {NAME} (dequantised from 4 bits). The vision tower and the "
    "projector were trained here on rendered clips; nobody published them."
)


@dataclass(frozen=True)
class Plan:
    """All that decides the weights of tower and projector, and what they are measured on.

    Attributes:
        threads: Torch threads where the language model takes part. The spelling uses one.
    """

    seed: int = 11926
    clips: int = 2500
    held_out: int = 64
    threads: int = 2
    spelling: Spelling = field(default_factory=Spelling)
    reading: Reading = field(default_factory=Reading)


# Builds in about a minute. Its vision is poor; its record says so.
REDUCED = Plan(
    clips=150,
    held_out=12,
    spelling=Spelling(steps=200, every=100),
    reading=Reading(steps=4, batch=4, every=2),
)


def build(out: Path, plan: Plan | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Build `out/llava_next_video` and `out/vision.json`, unless they are there and of this plan.

    Args:
        out: Folder for the checkpoint, the record and the state of unfinished trainings.
        plan: Sizes and seeds. Defaults to `Plan()`.
        report: Called with one line for each step. Defaults to print.

    Returns:
        The record, as in `vision.json`.

    Raises:
        MissingWeightsError: If the packages of the extra `small` are not installed.
    """
    import torch

    plan = plan or Plan()
    language = source()
    identity = plan_hash("small/3", asdict(plan), language["sha256"])
    record = read_record(out)
    if record is not None and record["plan_hash"] == identity:
        report(f"{out / CHECKPOINT} is built already")
        return record
    began = time.monotonic()
    torch.manual_seed(plan.seed)
    (out / RECORD).unlink(missing_ok=True)
    report(f"drawing {plan.clips} clips")
    samples = draw_samples(plan.clips, plan.seed)
    model, processor = create(*load_language_model())
    freeze_language(model)
    state = out / _STATE
    # The tower's matrices are small. On a busy machine a second thread mostly waits.
    torch.set_num_threads(1)
    learn_spelling(model, processor, samples, plan.spelling, plan.seed, state / "spelling.pt", report)
    torch.set_num_threads(plan.threads)
    learn_reading(model, processor, samples, plan.reading, plan.seed, state / "reading.pt", report)
    report(f"measuring on {plan.held_out} held-out clips")
    found = measure(model, processor, draw_samples(plan.held_out, plan.seed + 2, side="corpus"))
    save_whole(model, processor, out / CHECKPOINT)
    record = {
        "about": ABOUT,
        "plan_hash": identity,
        "language_model": language,
        "plan": asdict(plan),
        "held_out_clips": plan.held_out,
        "seconds_of_last_run": round(time.monotonic() - began),
        **verdict(found),
    }
    _write_record(out, record)
    shutil.rmtree(state, ignore_errors=True)
    for line in lines_of(found):
        report(line)
    report(f"vision: {record['vision']}")
    return record


def save_whole(model: Any, processor: Any, folder: Path) -> None:
    """Save a checkpoint so that a killed save leaves no folder of that name."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    processor.save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)


def read_record(out: Path) -> dict[str, Any] | None:
    """The record of a finished build. None if there is none."""
    if not (out / RECORD).is_file() or not (out / CHECKPOINT).is_dir():
        return None
    found: dict[str, Any] = json.loads((out / RECORD).read_text())
    return found


def lines_of(found: list[Sight]) -> list[str]:
    """The measurement as lines: "colour: 58 of 64 (82.9% to 95.1%), blind 9 of 64 (...), ..."."""
    lines = []
    for each in found:
        seen, blind, constant = (
            f"{rate.right} of {rate.n} ({rate.ci_low:.1%} to {rate.ci_high:.1%})"
            for rate in (each.seen, each.blind, each.constant)
        )
        end = "" if each.claimed else "; not claimed"
        lines.append(f"{each.attribute}: {seen}, blind {blind}, best constant {constant}{end}")
    return lines


def _write_record(out: Path, record: dict[str, Any]) -> None:
    beside = out / f".{RECORD}.{os.getpid()}"
    beside.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(beside, out / RECORD)
