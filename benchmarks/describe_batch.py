"""A local describer over 64 clips at pocket size: clips a second, batched through the gateway, on one thread.

Ours is what the describers' assets run: decoding, batches of 64, answers into the ledger, each asked for the
first time. The peers have the same checkpoint and the same frames: a loop that decodes a clip and calls
`generate`, and transformers' own `pipeline`, clip by clip. All in one process, in turns, models loaded and
warmed beforehand; medians of the turns count. The loop must say the same, word for word. Goal: at least 3
times the better peer, in every family. Run with ``python -m benchmarks.describe_batch``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import print_result
from safevid_core.models.families import build_inputs, conversation
from safevid_core.models.llm import Gateway
from safevid_core.models.video_chat import LocalVideoChat, VideoQuestion
from safevid_core.pocket.clips import generate_clips
from safevid_core.settings import VideoModel, load_settings
from safevid_core.video.decoding import decode_uniform

CLIPS, TURNS, GOAL = 64, 3, 3.0

Describe = Callable[[Sequence[Path]], list[str]]


def ours(chat: LocalVideoChat, prompt: str, root: Path) -> Describe:
    """The chat's model with a ledger that has no answer yet, each time."""
    loaded = chat.loaded()

    def describe(clips: Sequence[Path]) -> list[str]:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            settings = load_settings("pocket", overrides={"root": folder, "models": {"providers": []}})
            gateway = Gateway(settings)
            fresh = LocalVideoChat(chat.model, gateway)
            fresh._loaded = loaded
            answers = fresh.answer_many([VideoQuestion(prompt, str(clip)) for clip in clips], asset="bench")
            gateway.close()
        return [answer.text or "" for answer in answers]

    return describe


def one_by_one(chat: LocalVideoChat, prompt: str) -> Describe:
    """Decode, process, generate, for each clip."""
    import torch

    model, (loaded, processor) = chat.model, chat.loaded()

    def describe(clips: Sequence[Path]) -> list[str]:
        texts = []
        for clip in clips:
            frames = decode_uniform(clip, model.frames)
            inputs = build_inputs(model.family, processor, [conversation(prompt)], [frames])
            with torch.inference_mode():
                out = loaded.generate(**inputs, do_sample=False, max_new_tokens=model.max_new_tokens)
            said = out[0, inputs["input_ids"].shape[1] :]
            texts.append(processor.tokenizer.decode(said, skip_special_tokens=True).strip())
        return texts

    return describe


def by_pipeline(chat: LocalVideoChat, prompt: str) -> Describe:
    """`pipeline("any-to-any")`, which takes a video as an array of frames."""
    from transformers import pipeline

    model, (loaded, processor) = chat.model, chat.loaded()
    pipe: Any = pipeline("any-to-any", model=loaded, processor=processor)

    def describe(clips: Sequence[Path]) -> list[str]:
        texts = []
        for clip in clips:
            frames = decode_uniform(clip, model.frames)
            content = [{"type": "video", "video": frames.pixels}, {"type": "text", "text": prompt}]
            reply = pipe(
                text=[{"role": "user", "content": content}],
                max_new_tokens=model.max_new_tokens,
                return_full_text=False,
                generate_kwargs={"do_sample": False},
                processor_kwargs={"do_sample_frames": False},
            )
            texts.append(reply[0]["generated_text"].strip())
        return texts

    return describe


def measure(model: VideoModel, prompt: str, clips: Sequence[Path], root: Path) -> dict[str, Any]:
    """One family's case."""
    settings = load_settings("pocket", overrides={"root": str(root), "models": {"providers": []}})
    chat = LocalVideoChat(model, Gateway(settings))
    contenders = {
        "ours": ours(chat, prompt, root),
        "generate, one by one": one_by_one(chat, prompt),
        "pipeline, one by one": by_pipeline(chat, prompt),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    said: dict[str, list[str]] = {}
    for describe in contenders.values():
        describe(clips[:4])
    for _ in range(TURNS):
        for name, describe in contenders.items():
            started = time.perf_counter()
            said[name] = describe(clips)
            seconds[name].append(time.perf_counter() - started)
    assert said["ours"] == said["generate, one by one"], "the batch says something else than one by one"
    alike = sum(one == other for one, other in zip(said["ours"], said["pipeline, one by one"], strict=True))
    rates = {name: round(len(clips) / statistics.median(each), 2) for name, each in seconds.items()}
    mine = rates.pop("ours")
    return {
        "case": f"{model.family}, clips/s",
        "ours": mine,
        "peers": rates,
        "ratio": round(mine / max(rates.values()), 2),
        "pipeline says the same of": alike,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=CLIPS)
    count = parser.parse_args().clips
    import torch

    torch.set_num_threads(1)
    descriptions = load_settings("pocket").descriptions
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate_clips(
            root / "clips", root / "sealed.json", seed=11, scenes=["kitchen", "street", "forest", "beach"],
            clips_per_scene=-(-count // 4), twin_groups_per_scene=1,
        )  # fmt: skip
        clips = sorted((root / "clips" / "media").glob("*.mp4"))[:count]
        cases = [
            measure(model, descriptions.prompt, clips, root) for model in descriptions.describers.values()
        ]
    print_result("describe_batch", "clips/s", len(clips), cases, goal=GOAL)


if __name__ == "__main__":
    main()
