"""The clip embedder: a small open_clip model with its own tokenizer, loaded by `local-dir:FOLDER`."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safevid_core.pocket.build.grammar import scene_names
from safevid_core.pocket.build.optimisation import Optimiser, Shuffle
from safevid_core.pocket.build.samples import FRAMES, Samples
from safevid_core.pocket.build.vision import Report
from safevid_core.pocket.world import COLOURS, EVENTS, MOTIONS, OBJECTS, ClipTruth

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

NAME = "open_clip"

_SIDE = 48
_WIDTH = 96
_CONTEXT = 24
_PAD, _END, _UNKNOWN = "[PAD]", "[END]", "[UNK]"

# Prompts for training. None is a template of scenes.yaml, so the embedder must understand unseen prompts.
_TEMPLATES = (
    "{name}",
    "a photo of {name}",
    "a picture of {name}",
    "a frame that shows {name}",
    "this is {name}",
    "a scene in {name}",
    "a view of {name}",
    "the place is {name}",
    "an image taken in {name}",
    "here we see {name}",
    "{name} in a picture",
    "a recording made in {name}",
    "footage from {name}",
)
_MORE_WORDS = "video short clip filmed film movie of in at with and it the a an is inside outdoors long small"


@dataclass(frozen=True)
class Fitting:
    """Length and rate of the embedder's training."""

    steps: int = 600
    batch: int = 64
    rate: float = 2e-3
    unknown: float = 0.15


def build_embedder(folder: Path, samples: Samples, fitting: Fitting, seed: int, report: Report) -> None:
    """Train the embedder on single frames and write it to `folder`.

    There are two losses. In the first, a frame selects its scene among all scene prompts. In the second,
    frames and captions of a batch select each other, so that clips of one scene have different embeddings.
    """
    import open_clip
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(_config(tokenizer), indent=2))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = _preprocessed(samples, preprocess)
    names = scene_names()
    scenes = list(names)
    wanted = torch.tensor([scenes.index(truth.scene) for truth in samples.truths])
    optimiser = Optimiser([model], fitting.rate, fitting.steps)
    order, began, right = Shuffle(len(samples.truths), seed), time.monotonic(), 0.0
    model.train()
    for step in range(fitting.steps):
        rows = order.take(fitting.batch)
        frames = pixels[rows, torch.randint(FRAMES, (fitting.batch,))]
        prompts = [
            _blurred(rng.choice(_TEMPLATES).format(name=names[s]), names[s], fitting, rng) for s in scenes
        ]
        captions = [_caption(samples.truths[row], names, rng) for row in rows.tolist()]
        seen = model.encode_image(frames, normalize=True)
        said = model.encode_text(tokenize(prompts + captions), normalize=True)
        scale = model.logit_scale.exp().clamp(max=100.0)
        by_scene = scale * seen @ said[: len(scenes)].T
        by_caption = scale * seen @ said[len(scenes) :].T
        own = torch.arange(fitting.batch)
        loss = cross_entropy(by_scene, wanted[rows])
        loss = loss + 0.5 * (cross_entropy(by_caption, own) + cross_entropy(by_caption.T, own))
        optimiser.step(loss)
        right += (float((by_scene.argmax(-1) == wanted[rows]).float().mean()) - right) * 0.03
        if (step + 1) % 300 == 0 or step + 1 == fitting.steps:
            seconds = time.monotonic() - began
            report(
                f"{NAME} {step + 1}/{fitting.steps} loss {loss.item():.2f} scene {right:.2f} {seconds:.0f} s"
            )
    _save(model, folder)


def _caption(truth: ClipTruth, names: dict[str, str], rng: random.Random) -> str:
    thing = f"a {truth.colour} {truth.object}"
    return rng.choice(
        (
            f"{thing} in {names[truth.scene]}, it {EVENTS[truth.event]}",
            f"{names[truth.scene]} with {thing} that {EVENTS[truth.event]}",
            f"{thing} {EVENTS[truth.event]}",
        )
    )


def _blurred(prompt: str, name: str, fitting: Fitting, rng: random.Random) -> str:
    """The prompt with some words replaced by the unknown token. The words of the scene's name stay."""
    kept = set(name.split())
    return " ".join(
        _UNKNOWN if word not in kept and rng.random() < fitting.unknown else word for word in prompt.split()
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole lower-case words with an unknown token. Every text ends with the end token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [
        *_TEMPLATES,
        *scene_names().values(),
        *EVENTS.values(),
        *MOTIONS,
        *OBJECTS,
        *COLOURS,
        _MORE_WORDS,
    ]
    words = sorted({word for text in texts for word in text.replace("{name}", "").split()} | {","})
    vocabulary = {word: number for number, word in enumerate([_PAD, _END, _UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, vocabulary[_END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        model_max_length=_CONTEXT,
    )


def _config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {
                "image_size": _SIDE,
                "patch_size": 8,
                "width": _WIDTH,
                "layers": 2,
                "head_width": 24,
            },
            "text_cfg": {
                "context_length": _CONTEXT,
                "vocab_size": len(tokenizer),
                "hf_tokenizer_name": NAME,
                "tokenizer_mode": "",
                "width": _WIDTH,
                "heads": 4,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": tokenizer.eos_token_id,
                "pad_id": tokenizer.pad_token_id,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
    }


def _preprocessed(samples: Samples, preprocess: Any) -> torch.Tensor:
    """Every frame after open_clip's own transform: float `[N, FRAMES, 3, side, side]`."""
    import torch
    from PIL import Image

    flat = samples.frames.reshape(-1, *samples.frames.shape[2:])
    made = torch.stack([preprocess(Image.fromarray(frame)) for frame in flat])
    return made.reshape(len(samples.frames), FRAMES, *made.shape[1:])


def _save(model: torch.nn.Module, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {
        name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "open_clip_model.safetensors")
