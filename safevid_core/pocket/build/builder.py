"""Builds the pocket checkpoints in order and writes a record of how they were built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safevid_core.pocket.build.architectures import FAMILIES, INTERNVL, LLAVA, QWEN, create
from safevid_core.pocket.build.embedder import NAME as EMBEDDER
from safevid_core.pocket.build.embedder import Fitting, build_embedder
from safevid_core.pocket.build.grammar import Grammar
from safevid_core.pocket.build.samples import Samples, draw_samples
from safevid_core.pocket.build.speech import DESCRIBER_MIX, POLICY_MIX, Classroom, Lesson
from safevid_core.pocket.build.tokenizer import train_tokenizer
from safevid_core.pocket.build.vision import WarmUp, blank_frames, features_of, pixels_of, warm_up

RECORD = "BUILD.json"

_PACKAGES = ("torch", "transformers", "tokenizers", "open_clip_torch", "av", "numpy", "pillow")


@dataclass(frozen=True)
class Plan:
    """All parameters that decide the weights. The defaults are those of the shipped checkpoints."""

    seed: int = 11926
    clips: int = 8000
    warm_up: dict[str, WarmUp] = field(
        default_factory=lambda: {LLAVA: WarmUp(4500), QWEN: WarmUp(3000), INTERNVL: WarmUp(4000)}
    )
    lessons: dict[str, Lesson] = field(
        default_factory=lambda: {
            LLAVA: Lesson(POLICY_MIX, steps=3500),
            QWEN: Lesson(DESCRIBER_MIX, steps=900),
            INTERNVL: Lesson(DESCRIBER_MIX, steps=1800),
        }
    )
    embedder: Fitting = field(default_factory=Fitting)
    embedder_clips: int = 3000


def build(
    out: Path,
    plan: Plan | None = None,
    parts: tuple[str, ...] = (*FAMILIES, EMBEDDER),
    report: Callable[[str], None] = print,
) -> None:
    """Build `parts` into folders of `out` and write `BUILD.json`. The same plan gives the same bytes.

    One thread is used, because the order of sums, and with it the weights, depends on the number of threads.

    Args:
        out: Folder for the checkpoints. Existing folders of `parts` are overwritten.
        plan: Seeds and lengths. Defaults to those of the shipped checkpoints.
        parts: The checkpoints to build. Defaults to all four.
        report: Called with one line for each stage of the build. Defaults to print.
    """
    import torch

    plan = plan or Plan()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out.mkdir(parents=True, exist_ok=True)
    report(f"drawing {plan.clips} clips")
    samples = draw_samples(plan.clips, plan.seed)
    for part in parts:
        if part == EMBEDDER:
            few = plan.embedder_clips
            fewer = Samples(samples.frames[:few], samples.centres[:few], samples.truths[:few])
            build_embedder(out / part, fewer, plan.embedder, plan.seed, report)
        else:
            build_language_model(part, out / part, samples, plan, report)
    write_record(out, plan)


def build_language_model(
    family: str, folder: Path, samples: Samples, plan: Plan, report: Callable[[str], None]
) -> None:
    """Train one video language model, first its vision and then its language, and save it in bfloat16."""
    import torch

    torch.manual_seed(plan.seed)
    model, processor = create(family, train_tokenizer(plan.seed))
    pixels = pixels_of(processor, samples.frames)
    warm_up(family, model, pixels, samples, plan.warm_up[family], plan.seed, report)
    clips = features_of(family, model, pixels)
    blanks = features_of(family, model, pixels_of(processor, blank_frames(samples.frames.shape[2])))
    classroom = Classroom(family, model, processor, clips, blanks, samples.truths)
    grammar = Grammar(plan.seed, style=FAMILIES.index(family))
    classroom.teach(plan.lessons[family], grammar, plan.seed, report)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    report(f"{family} saved")


def write_record(out: Path, plan: Plan) -> None:
    """Write `BUILD.json`: the plan, the package versions, and the SHA-256 of each weight file in `out`."""
    record: dict[str, Any] = {
        "plan": asdict(plan),
        "versions": {name: version(name) for name in _PACKAGES},
        "sha256": weight_hashes(out),
    }
    (out / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def weight_hashes(out: Path) -> dict[str, str]:
    """Path of each weight file relative to `out` -> SHA-256."""
    files = sorted(out.glob("*/*.safetensors"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
