"""Many questions about one video, answered by a local model: answers a second and peak memory.

The model, the frames and the questions are the same for all. **Ours** is shared generation, which a local
chat runs for several questions about one video. **Unshared** is our plain `generate` in batches of padded
rows, which a local chat runs for single questions. **Copied prefix** is transformers' `generate` with the
keys and values of the video computed once and copied to each row. Each peer counts at its fastest batch size.
Each contender also processes the frames.

The shape: LLaVA-NeXT-Video with a language model 4 layers deep and 384 wide, a vocabulary of 32,000, and the
vision tower of `dpo_packing`; 336 pixels, 8 frames: 1,152 video tokens; 28 questions of 40 tokens beside
those of the chat template; exactly 64 new tokens; greedy; float32; 2 threads. Each contender has a process of
its own, so that its peak memory can be measured. All run in turns, and the figures are medians. All tokens
must be equal. Idle threads sleep (`OMP_WAIT_POLICY=PASSIVE`), because threads that wait actively distort the
figures of a machine that also does other work.

Run with ``python -m benchmarks.answer_sharing``; `--growth` adds 1, 2, 4, 8 and 16 questions and draws the
plot of docs/models.md.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

QUESTION, QUESTIONS, NEW, THREADS = 40, 28, 64, 2
ROUNDS = 3
GROWTH = (1, 2, 4, 8, 16, 28)
BATCHES = {"ours": (QUESTIONS,), "unshared": (8, 14), "copied prefix": (4, 8, 14)}
GOALS = {"unshared": 5.0, "copied prefix": 4.0}
PLOT = Path(__file__).parents[1] / "docs" / "pictures" / "answer_sharing.svg"


class Contender(NamedTuple):
    """A way to answer, and its batch size."""

    way: str
    batch: int


class Turn(NamedTuple):
    """What one turn took.

    Attributes:
        seconds: Time on the clock.
        cpu_seconds: Time of the processor, which depends less on what else runs.
        peak: Peak memory of the process so far, in bytes, beyond what it had with the model loaded.
        tokens: The tokens of each answer.
    """

    seconds: float
    cpu_seconds: float
    peak: float
    tokens: list[list[int]]


def build_processor(tokenizer: Any, chat_template: str) -> Any:
    """A processor of frames of 336 pixels, in patches of 14."""
    from transformers import LlavaNextImageProcessor, LlavaNextVideoProcessor, LlavaNextVideoVideoProcessor

    square = {"height": 336, "width": 336}
    return LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size=square, crop_size=square),
        image_processor=LlavaNextImageProcessor(
            size=square, crop_size=square, image_grid_pinpoints=[[336, 336]]
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def make_questions(tokenizer: Any, count: int) -> list[str]:
    """Texts of 40 tokens each, of random words that are one token."""
    words = [tokenizer.decode([number]) for number in range(20, len(tokenizer))]
    words = [word for word in words if word.strip().isalpha() and len(tokenizer.tokenize(word)) == 1]
    rng = np.random.default_rng(0)
    questions: list[str] = []
    while len(questions) < count:
        text = " ".join(word.strip() for word in rng.choice(words, QUESTION))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:QUESTION]
        text = tokenizer.decode(ids).strip()
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) == QUESTION:
            questions.append(text)
    return questions


class Work:
    """The model, the frames and the questions, and the three ways to answer them."""

    def __init__(self) -> None:
        import torch

        from benchmarks.dpo_packing import SHAPES, build_model
        from safevid_core.models.video_chat import load_local
        from safevid_core.settings import load_settings
        from safevid_core.video.decoding import Frames

        torch.set_num_threads(THREADS)
        base = load_settings("pocket").alignment.base
        pocket = load_local(base)[1]
        self.processor = build_processor(pocket.tokenizer, pocket.chat_template)
        self.loaded = build_model(replace(SHAPES["cpu"], vocabulary=32000), "cpu").eval()
        self.loaded.generation_config.pad_token_id = pocket.tokenizer.pad_token_id  # no end token: 64 tokens
        self.model = base.model_copy(
            update={"dtype": "float32", "max_new_tokens": NEW, "temperature": 0.0, "repetition_penalty": 1.0}
        )
        pixels = np.random.default_rng(1).integers(0, 256, (8, 336, 336, 3), dtype=np.uint8)
        self.frames = Frames(pixels, [float(second) for second in range(8)], 8.0)
        self.questions = make_questions(pocket.tokenizer, QUESTIONS)

    def answer(self, way: str, batch: int, count: int) -> list[list[int]]:
        from safevid_core.models.families import conversation

        asked = [conversation(text) for text in self.questions[:count]]
        ways = {"ours": self._shared, "unshared": self._unshared, "copied prefix": self._copied}
        return ways[way](asked, batch)

    def _shared(self, asked: list[Any], batch: int) -> list[list[int]]:
        from safevid_core.models.shared_videos import AskedVideo, SharedVideos

        videos = SharedVideos(self.model, self.loaded, self.processor)
        video = AskedVideo(self.frames, False, asked, ["0"] * len(asked))
        generated = []
        for start in range(0, len(asked), batch):
            indices = range(start, min(start + batch, len(asked)))
            generated += videos.generate([(video, index) for index in indices])
        return [each[1] for each in generated if each is not None]

    def _unshared(self, asked: list[Any], batch: int) -> list[list[int]]:
        from safevid_core.models.generation import generate_ids

        answers: list[list[int]] = []
        for start in range(0, len(asked), batch):
            some = asked[start : start + batch]
            videos, keys = [self.frames] * len(some), ["0"] * len(some)
            found = generate_ids(self.model, self.loaded, self.processor, some, videos, keys)
            answers += [ids for _, ids in found]
        return answers

    def _copied(self, asked: list[Any], batch: int) -> list[list[int]]:
        import torch
        from transformers import DynamicCache

        from safevid_core.models.prompts import encode_prompts, on_device

        prompts, inputs = encode_prompts(self.model.family, self.processor, asked, self.frames)
        prefix = torch.tensor([prompts[0].ids[: prompts[0].video_end]])
        answers: list[list[int]] = []
        with torch.inference_mode():
            once = DynamicCache()
            self.loaded.model(
                input_ids=prefix, past_key_values=once, use_cache=True, **on_device(inputs, self.loaded)
            )
            for start in range(0, len(asked), batch):
                ids = torch.tensor([prompt.ids for prompt in prompts[start : start + batch]])
                cache = copy.deepcopy(once)
                cache.batch_repeat_interleave(len(ids))
                out = self.loaded.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    past_key_values=cache,
                    do_sample=False,
                    max_new_tokens=NEW,
                )
                answers += out[:, ids.shape[1] :].tolist()
        return answers


def serve(contender: Contender, requests: Connection) -> None:
    """Answer as many questions as each message asks for, until the message None."""
    import warnings

    warnings.simplefilter("ignore")
    work = Work()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again, at the memory of the model
    before = _peak()
    work.answer(contender.way, 1, 1)
    requests.send(None)
    while (count := requests.recv()) is not None:
        started, of_cpu = time.perf_counter(), time.process_time()
        tokens = work.answer(contender.way, contender.batch, count)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - of_cpu
        requests.send(Turn(seconds, cpu_seconds, _peak() - before, tokens))


def _peak() -> float:
    """Peak bytes of this process."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


class Contenders:
    """A process for each contender, asked in turns."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[Contender, Connection] = {}
        for contender in contenders:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(contender, theirs), daemon=True).start()
            theirs.close()
            self._pipes[contender] = ours
            ours.recv()

    def turns(self, count: int, rounds: int, contenders: Sequence[Contender]) -> dict[Contender, list[Turn]]:
        found: dict[Contender, list[Turn]] = {contender: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                self._pipes[contender].send(count)
                turn: Turn = self._pipes[contender].recv()
                found[contender].append(turn)
                print(f"{contender.way}, batch {contender.batch}: {turn.seconds:.1f} s", file=sys.stderr)
        return found

    def end(self) -> None:
        for pipe in self._pipes.values():
            pipe.send(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    count = options.questions
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # of the processes that are started below
    load = [os.getloadavg()[0]]
    everyone = [Contender(way, batch) for way, batches in BATCHES.items() for batch in batches]
    contenders = Contenders(everyone)
    found = contenders.turns(count, options.rounds, everyone)
    load.append(os.getloadavg()[0])
    answers = {tuple(map(tuple, turn.tokens)) for turns in found.values() for turn in turns}
    if len(answers) > 1 or {len(answer) for answer in next(iter(answers))} != {NEW}:
        raise SystemExit("the contenders do not give the same tokens")
    seconds = {name: statistics.median(turn.seconds for turn in turns) for name, turns in found.items()}
    best = [min((each for each in everyone if each.way == way), key=seconds.__getitem__) for way in BATCHES]
    of_cpu = {name: statistics.median(turn.cpu_seconds for turn in found[name]) for name in best}
    peak = {name: max(turn.peak for turn in found[name]) for name in best}
    cases = [
        _case("answers/s", {name: count / seconds[name] for name in best}),
        _case("answers a second of processor time", {name: count / of_cpu[name] for name in best}),
        _case(
            "peak memory beyond the model, MB", {name: peak[name] / 1e6 for name in best}, less_is_better=True
        ),
        {
            "case": "all batches, s",
            "ours": round(seconds[best[0]], 2),
            "peers": {f"{name.way}, batch {name.batch}": round(seconds[name], 2) for name in everyone[1:]},
            "ratio": None,
        },
    ]
    if options.growth:
        cases.append(_growth(contenders, best, options.rounds))
    contenders.end()
    ratios = {name.way: round(seconds[name] / seconds[best[0]], 2) for name in best[1:]}
    about = {"name": "answer_sharing", "unit": "answers/s", "n": count, "threads": THREADS, "load": load}
    print(json.dumps({**about, "goals": GOALS, "cases": cases, "ratio": ratios}))


def _case(name: str, figures: dict[Contender, float], less_is_better: bool = False) -> dict[str, Any]:
    """A case whose first contender is ours. The ratio to the best peer is above 1 if ours is better."""
    ours, *peers = figures.values()
    digits = 0 if less_is_better else 2
    return {
        "case": name,
        "ours": round(ours, digits),
        "peers": {
            f"{each.way}, batch {each.batch}": round(figures[each], digits) for each in list(figures)[1:]
        },
        "ratio": round(min(peers) / ours if less_is_better else ours / max(peers), 2),
    }


def _growth(contenders: Contenders, best: Sequence[Contender], rounds: int) -> dict[str, Any]:
    """Answers a second by the number of questions, and the plot."""
    curves: dict[str, dict[int, float]] = {each.way: {} for each in best}
    for number in GROWTH:
        for each, turns in contenders.turns(number, rounds, best).items():
            curves[each.way][number] = number / statistics.median(turn.seconds for turn in turns)
    draw(curves, PLOT)
    peers = {
        way: {str(number): round(rate, 2) for number, rate in curve.items()} for way, curve in curves.items()
    }
    ours = peers.pop("ours")
    return {"case": "answers/s by questions per video", "ours": ours, "peers": peers, "ratio": None}


def draw(curves: dict[str, dict[int, float]], plot: Path) -> None:
    """Answers a second by the number of questions about the video."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    names = {
        "ours": "shared",
        "unshared": "unshared",
        "copied prefix": "generate, prefix copied to each row",
    }
    for (way, curve), marker in zip(curves.items(), "so^", strict=True):
        axes.plot(list(curve), list(curve.values()), f"{marker}-", label=names[way])
    axes.set(xlabel="questions a video", ylabel="answers a second", xticks=GROWTH, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(plot, metadata={"Date": None})


if __name__ == "__main__":
    main()
