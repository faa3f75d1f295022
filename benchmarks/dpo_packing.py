"""Video DPO packed as trees against stock trl and our own padded rows: one epoch over one video's pairs.

Same pairs, same model, same optimizer step. **Stock** is trl's `DPOTrainer` with nothing added but video: its
own `_compute_loss` with the reference forward in the step, fed pixels by our collator, at its fastest
micro-batch. Ours is `VideoDPOTrainer` with packing `none` (likewise at its fastest), `pair` and `video`,
features and reference once.
Their token counts are asserted equal before anything is shared. Levers are read off an epoch's parts.

The shape on a CPU: LLaVA-NeXT-Video with a language model 4 layers deep and 384 wide, 336 pixels, 8 frames:
1,152 video tokens; queries of 40 tokens, answers of 120; 28 pairs a video; float32; LoRA of rank 16; one
thread. The vision tower is 2 layers deep and 112 wide, the share of the forward pass that CLIP-L has in the
7B model. The vocabulary has 2,048 tokens, which favours stock: on a CPU it scores every position, and a real
vocabulary costs it more. With `--device cuda` the shape is LLaVA-NeXT-Video-7B's with random weights,
bfloat16, LoRA of rank 64, and what trains is prepared as a training prepares it.

Run with ``python -m benchmarks.dpo_packing``; `--growth` adds 1, 2, 4, 8 and 16 pairs a video and draws the
plot of docs/alignment.md.
"""

from __future__ import annotations

import argparse
import gc
import math
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import print_result

VIDEO_TOKENS, QUERY, ANSWER, PAIRS = 1152, 40, 120, 28
# Most pairs of a turn, beside the trunk: those that count, and others to compare them with.
TURN_PAIRS = {"cpu": (14, 28), "cuda": (28, 14)}
ROUNDS = 3  # of stock, `none` and ours in turn; medians count
GROWTH = (1, 2, 4, 8, 16, 28)
MICRO_BATCHES = {"cpu": (1, 2), "cuda": (2, 4)}  # of padded rows, in pairs; the fastest counts
GOALS = {"cpu": (10.0, 13.0), "cuda": (6.0, 9.0)}
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PLOTS = {"cpu": PICTURES / "dpo_packing.svg", "cuda": PICTURES / "dpo_packing_gpu.svg"}


class Transformer(NamedTuple):
    """Sizes of a transformer, by their names in a configuration of the library transformers."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    language: Transformer
    vision: Transformer
    vocabulary: int
    rank: int
    dtype: str


SHAPES = {
    "cpu": Shape(Transformer(384, 4, 6, 1024), Transformer(112, 2, 2, 448), 2048, 16, "float32"),
    "cuda": Shape(Transformer(4096, 32, 32, 11008), Transformer(1024, 24, 16, 4096), 32064, 64, "bfloat16"),
}


def turn_tokens(pairs: int) -> int:
    """Tokens of a pass that holds a trunk and the branches of so many pairs."""
    return VIDEO_TOKENS + pairs * (QUERY + 2 * ANSWER)


def build_model(shape: Shape, device: str) -> Any:
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
    )

    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(
            **shape.vision._asdict(), image_size=336, patch_size=14, projection_dim=shape.vision.hidden_size
        ),
        text_config=LlamaConfig(
            **shape.language._asdict(),
            vocab_size=shape.vocabulary,
            num_key_value_heads=shape.language.num_attention_heads,
            max_position_embeddings=4096,
        ),
        image_token_index=4,
        video_token_index=3,
        image_grid_pinpoints=[[336, 336]],
    )
    torch.manual_seed(0)
    with torch.device(device):
        return LlavaNextVideoForConditionalGeneration(config).to(getattr(torch, shape.dtype))


def make_pairs(count: int, vocabulary: int, seed: int = 0) -> list[Any]:
    """Pairs about one video; queries and answers are random tokens that differ from the first one on."""
    from safevid_core.alignment.encoding import EncodedPair

    rng = np.random.default_rng(seed)

    def text(length: int) -> list[int]:
        return rng.integers(10, vocabulary, length).tolist()

    video = [3] * VIDEO_TOKENS
    return [
        EncodedPair(
            f"pair-{number}", "clip", [*video, *text(QUERY)], None, text(ANSWER), text(ANSWER), VIDEO_TOKENS
        )
        for number in range(count)
    ]


def operations(packing: str, pairs: int, shape: Shape) -> dict[str, float]:
    """Operations that the reference and a step need at least.

    Each token that must be computed goes once through each layer, and each visible pair of tokens once
    through attention. Backward, a frozen weight costs one product a token, as forward, and attention four
    products to forward's two; the adapter's own products are left out.
    """
    width, layers, _, inner = shape.language
    answer, prompt = ANSWER - 1, VIDEO_TOKENS + QUERY  # the last token of an answer predicts nothing
    answers = 2 * pairs * (answer * prompt + _causal(answer))
    if packing == "none":
        tokens = 2 * pairs * (prompt + answer)
        cells = 2 * pairs * _causal(prompt) + answers
    elif packing == "pair":
        tokens = pairs * (prompt + 2 * answer)
        cells = pairs * _causal(prompt) + answers
    else:
        tokens = VIDEO_TOKENS + pairs * (QUERY + 2 * answer)
        cells = _causal(VIDEO_TOKENS) + pairs * (QUERY * VIDEO_TOKENS + _causal(QUERY)) + answers
    linear = 2.0 * layers * (4 * width**2 + 3 * width * inner) * tokens
    attention = 4.0 * layers * width * cells
    head = 2.0 * shape.vocabulary * width * 2 * pairs * ANSWER
    return {"reference": linear + attention + head, "step": 2 * linear + 3 * attention + 2 * head}


def _causal(tokens: int) -> float:
    return tokens * (tokens + 1) / 2


def floor(packing: str, pairs: int, shape: Shape) -> float:
    """Operations of one epoch with its reference."""
    return sum(operations(packing, pairs, shape).values())


def matrix_rate(shape: Shape, device: str) -> float:
    """Operations a second of a plain matrix product of the model's shape, the best of 5."""
    import torch

    width, _, _, inner = shape.language
    left = torch.randn(8192, width, device=device, dtype=getattr(torch, shape.dtype))
    right = torch.randn(width, inner, device=device, dtype=left.dtype)
    return 2 * 8192 * width * inner / min(_seconds(lambda: left @ right, device) for _ in range(5))


def build_trainer(shape: Shape, device: str, pairs: Sequence[Any], packing: str, pass_size: int) -> Any:
    """A trainer with LoRA's B drawn at random, as after some steps; packing `stock` is trl's own class."""
    import torch
    from datasets import Dataset
    from trl import DPOTrainer

    from safevid_core.alignment.clips import FeatureStore, PixelStore
    from safevid_core.alignment.collator import ForestCollator, StepCollator, VideoPreferenceCollator
    from safevid_core.alignment.trainer import VideoDPOTrainer, lora_config, training_arguments
    from safevid_core.models.rope import trunk_positions
    from safevid_core.models.video_chat import load_local
    from safevid_core.settings import load_settings

    class Stock(DPOTrainer):
        """trl's trainer, which keeps no video column by itself."""

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["pair_id", "images"]

    pocket = load_settings("pocket").alignment
    base = pocket.base.model_copy(update={"device": device, "dtype": shape.dtype})
    settings = pocket.model_copy(
        update={"lora_rank": shape.rank, "lora_alpha": 2 * shape.rank, "batch_size": PAIRS, "base": base}
    )
    model = build_model(shape, device)
    store: Any = PixelStore() if packing == "stock" else FeatureStore(model, "llava_next_video")
    rows = VideoPreferenceCollator(pairs, store, pad_token_id=0)
    arguments: dict[str, Any] = {
        "model": model,
        "args": training_arguments(settings, Path(tempfile.mkdtemp()), len(pairs), seed=0),
        "processing_class": load_local(pocket.base)[1],  # trl wants one; the pairs are token ids already
        "peft_config": lora_config(settings),
    }
    if packing == "stock":
        names = Dataset.from_dict(
            {"pair_id": [pair.pair_id for pair in pairs], "images": [["clip"]] * len(pairs)}
        )
        trainer: Any = Stock(data_collator=rows, train_dataset=names, **arguments)
    else:
        forests = ForestCollator(store, partial(trunk_positions, model.model))
        collator = StepCollator(pairs, rows, forests, packing, pass_size, pass_size)  # type: ignore[arg-type]
        trainer = VideoDPOTrainer(data_collator=collator, **arguments)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    trainer.model.train()
    trainer.accelerator.prepare_model(trainer.model)  # autocast, as in a training
    return trainer, store, rows


def measure(shape: Shape, device: str, count: int, packing: str, pass_size: int) -> dict[str, float]:
    """Seconds of the parts of one epoch over one video's pairs, and the peak memory that it took.

    Args:
        pass_size: The micro-batch of stock and `none` in pairs; otherwise the most tokens of a pass.
    """
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    else:
        gc.collect()  # of the model before
        torch.cuda.empty_cache()
    pairs = make_pairs(count, shape.vocabulary)
    trainer, store, rows = build_trainer(shape, device, pairs, packing, pass_size)
    generator = torch.Generator().manual_seed(1)
    clip = {"pixel_values_videos": torch.randn(1, 8, 3, 336, 336, generator=generator)}
    trainer.current_gradient_accumulation_steps = 1
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = 0.0  # the weights count
    else:
        before = _memory(device)

    def stock_step() -> None:
        for start in range(0, count, pass_size):
            batch = rows.batch(pairs[start : start + pass_size])
            share = len(batch.pop("pair_ids")) / count
            batch = trainer._prepare_inputs(batch)
            (trainer.compute_loss(trainer.model, batch) * share).backward()
        optimizer.step()
        optimizer.zero_grad()

    def our_step() -> None:
        trainer.training_step(trainer.model, {"passes": trainer.data_collator.cuts(pairs)})
        optimizer.step()
        optimizer.zero_grad()

    found: dict[str, float] = {}
    if packing == "stock":
        store.add("clip", clip)
        one = rows.batch(pairs[:1])
        found["step"] = _best(stock_step, device)
        found["reference"] = _best(lambda: _stock_reference(trainer, dict(one)), device) * count
        with torch.no_grad():
            pixels = clip["pixel_values_videos"].to(device, trainer.model.dtype)
            vision = trainer.model.get_base_model().model.get_video_features
            found["vision"] = _best(lambda: vision(pixels), device)
    else:
        found["vision"] = _best(lambda: store.add("clip", clip), device)
        found["reference"] = _best(trainer.store_reference, device)
        found["step"] = _best(our_step, device)
    found["memory"] = _memory(device) - before
    found["tokens"] = _row_tokens(pairs)
    found["computed"] = _computed(trainer, rows, pairs, packing)
    return found


def _stock_reference(trainer: Any, batch: dict[str, Any]) -> None:
    batch.pop("pair_ids")
    trainer.compute_ref_log_probs(trainer.model, trainer._prepare_inputs(batch))


def _row_tokens(pairs: Sequence[Any]) -> float:
    from safevid_core.alignment.tree import row_tokens

    return float(sum(map(row_tokens, pairs)))


def _computed(trainer: Any, rows: Any, pairs: Sequence[Any], packing: str) -> float:
    """Tokens that go through the language model in one step, padding included."""
    if packing == "stock":
        return float(rows.batch(pairs)["attention_mask"].numel())
    from safevid_core.alignment.tree import tree_tokens

    collator = trainer.data_collator
    whole = [[pair for some in turns for pair in some] for turns in collator.cuts(pairs)]
    if packing == "none":
        return float(sum(collator.forward_pass(some)["attention_mask"].numel() for some in whole))
    return float(sum(map(tree_tokens, whole)))


def _best(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of two runs; of three on a GPU, where the first one compiles."""
    return min(_seconds(work, device) for _ in range(2 if device == "cpu" else 3))


def _seconds(work: Callable[[], object], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _memory(device: str) -> float:
    """Peak bytes so far."""
    import torch

    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def keep_memory() -> None:
    """Begin again in the environment of the training processes, in which stock is faster as well."""
    from safevid_core.alignment.dpo import KEEP_MEMORY

    if not KEEP_MEMORY.keys() <= os.environ.keys():
        command = [sys.executable, "-m", "benchmarks.dpo_packing", *sys.argv[1:]]
        os.execve(sys.executable, command, {**KEEP_MEMORY, **os.environ})


def apart(shape: Shape, device: str, count: int, packing: str, pass_size: int) -> dict[str, float]:
    """`measure`, on a CPU in a process of its own, so that its memory is its own."""
    import torch

    arguments = (shape, device, count, packing, pass_size)
    if device == "cpu":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(measure, arguments)
    try:
        return measure(*arguments)
    except torch.OutOfMemoryError:
        if packing not in ("stock", "none"):
            raise
        return {"step": math.inf}  # a micro-batch that does not fit is not the fastest


def main() -> None:
    keep_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=sorted(SHAPES), default="cpu")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument(
        "--stock-pairs",
        type=int,
        default=4,
        help="measure stock and `none`, whose cost a pair is constant, on so many",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    device, count = options.device, options.pairs
    few = min(options.stock_pairs, count)
    shape, scale = SHAPES[device], count / few
    turn_pairs, other_pairs = TURN_PAIRS[device]
    in_turns = turn_tokens(turn_pairs)
    import torch
    import trl  # noqa: F401  (a fork has it then)

    warnings.simplefilter("ignore")

    if device == "cpu":
        torch.set_num_threads(1)
    stocks = {f"stock trl, micro-batch {micro}": (few, "stock", micro) for micro in MICRO_BATCHES[device]}
    rows = {f"none, micro-batch {micro}": (few, "none", micro) for micro in MICRO_BATCHES[device]}
    in_turn = stocks | rows | {"video": (count, "video", in_turns)}
    rounds, rates = [], []
    for _ in range(options.rounds):
        rates.append(matrix_rate(shape, device))
        rounds.append({name: apart(shape, device, *what) for name, what in in_turn.items()})
    rate = max(rates)
    parts = {name: _medians([each[name] for each in rounds]) for name in in_turn} | {
        "pair": apart(shape, device, count, "pair", VIDEO_TOKENS + QUERY + 2 * ANSWER),
        "other turns": apart(shape, device, count, "video", turn_tokens(other_pairs)),
    }
    fastest, fastest_rows = (min(names, key=lambda each: parts[each]["step"]) for names in (stocks, rows))
    stock, none = parts[fastest], parts[fastest_rows]
    if stock["tokens"] * scale != parts["video"]["tokens"] or stock["computed"] != stock["tokens"]:
        raise SystemExit("stock and ours do not train on the same tokens")
    for name in ("step", "reference", "tokens", "computed"):
        stock[name] *= scale
        none[name] *= scale

    def fresh(part: dict[str, float]) -> float:
        return part["vision"] + part["reference"] + part["step"]

    ours, pair = parts["video"], parts["pair"]
    least = {packing: floor(packing, count, shape) for packing in ("none", "pair", "video")}
    floor_ratio = least["none"] / least["video"]
    other = parts["other turns"]
    cases: list[dict[str, Any]] = [
        _case(
            "pairs/s, one epoch, nothing stored",
            count / fresh(ours),
            {fastest: count / stock["step"], fastest_rows: count / fresh(none)},
        ),
        _case(
            "pairs/s, features and reference stored",
            count / ours["step"],
            {"stock trl": count / stock["step"], "none": count / none["step"]},
        ),
        _case("arithmetic floor against none", least["video"], {"none": least["none"]}, digits=0),
        _case("share of the floor's ratio that is reached", fresh(none) / fresh(ours) / floor_ratio, {}),
        _case(
            "times the floor at the rate of a matrix product",
            fresh(ours) / (least["video"] / rate),
            {"none": fresh(none) / (least["none"] / rate)},
        ),
        _case(
            "tokens computed",
            ours["computed"],
            {"stock trl": stock["computed"], "pair": pair["computed"]},
            digits=0,
        ),
        _case(
            "peak memory, GB",
            ours["memory"] / 1e9,
            {name: each["memory"] / 1e9 for name, each in (("stock trl", stock), ("none", none))},
        ),
        _case(
            f"turns of {turn_pairs} pairs or of {other_pairs}: pairs/s, nothing stored",
            count / fresh(ours),
            {"other": count / fresh(other)},
        ),
        _case(
            f"turns of {turn_pairs} pairs or of {other_pairs}: peak memory, GB",
            ours["memory"] / 1e9,
            {"other": other["memory"] / 1e9},
        ),
        _lever("vision once", stock["step"], stock["step"] - (4 * count - 1) * stock["vision"]),
        _lever("reference stored", stock["step"], stock["step"] - stock["reference"]),
        _lever(
            "answers scored alone",
            stock["step"] - 4 * count * stock["vision"],
            none["step"] + none["reference"],
        ),
        _lever("pair sharing", none["reference"] + none["step"], pair["reference"] + pair["step"]),
        _lever("video sharing", pair["reference"] + pair["step"], ours["reference"] + ours["step"]),
    ]
    if device == "cuda":
        cases.append(_mfu(shape, count, ours, stock))
    ratios = (stock["step"] / fresh(ours), stock["step"] / ours["step"])
    cases.append(
        {
            "case": "ratio to stock, nothing stored and stored",
            "ours": [round(each, 2) for each in ratios],
            "peers": {"goal": list(GOALS[device])},
            "ratio": None,
        }
    )
    if options.growth:
        cases.append(_growth(shape, device, stock["step"] / count, in_turns))
    ratio = round(ratios[0], 2)
    print_result("dpo_packing", "pairs/s", count, cases, ratio, device=device, shape=str(shape))


def _medians(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in measured) for name in measured[0]}


def _mfu(shape: Shape, count: int, ours: dict[str, float], stock: dict[str, float]) -> dict[str, Any]:
    """The share of the GPU's peak rate that a step uses; stock's has its reference in it."""
    import torch

    from safevid_core.alignment.throughput import peak_operations

    peak = peak_operations(torch.cuda.get_device_name())
    if peak is None:
        raise SystemExit(f"the peak rate of {torch.cuda.get_device_name()} is not known")
    shares = (
        operations("video", count, shape)["step"] / ours["step"] / peak,
        floor("none", count, shape) / stock["step"] / peak,
    )
    return _case("MFU of a step", shares[0], {"stock trl": shares[1]})


def _growth(shape: Shape, device: str, stock_pair_s: float, pass_tokens: int) -> dict[str, Any]:
    """The ratio to stock by pairs a video, and its plot."""
    curve = {}
    for number in GROWTH:
        part = apart(shape, device, number, "video", pass_tokens)
        stock_s = stock_pair_s * number
        whole = part["vision"] + part["reference"] + part["step"]
        curve[number] = (stock_s / whole, stock_s / part["step"])
    floors = {number: floor("none", number, shape) / floor("video", number, shape) for number in GROWTH}
    draw(curve, floors, PLOTS[device])
    ours = {str(number): [round(each, 2) for each in both] for number, both in curve.items()}
    return {"case": "ratio to stock by pairs a video", "ours": ours, "peers": {}, "ratio": None}


def _case(name: str, ours: float, peers: dict[str, float], digits: int = 4) -> dict[str, Any]:
    best = next(iter(peers.values()), None)
    return {
        "case": name,
        "ours": round(ours, digits),
        "peers": {peer: round(value, digits) for peer, value in peers.items()},
        "ratio": None if best is None else round(max(ours / best, best / ours), 2),
    }


def _lever(name: str, without: float, with_it: float) -> dict[str, Any]:
    return {
        "case": f"lever alone: {name}, s",
        "ours": round(with_it, 3),
        "peers": {"without": round(without, 3)},
        "ratio": round(without / with_it, 2),
    }


def draw(curve: dict[int, tuple[float, float]], floors: dict[int, float], plot: Path) -> None:
    """The ratio to stock by pairs a video, with the floor's ratio to padded rows."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    numbers = list(curve)
    axes.plot(numbers, [both[1] for both in curve.values()], "o-", label="features and reference stored")
    axes.plot(numbers, [both[0] for both in curve.values()], "s-", label="nothing stored")
    axes.plot(
        numbers, list(floors.values()), "--", color="grey", label="arithmetic floor, against padded rows"
    )
    axes.set(xlabel="pairs a video", ylabel="times as fast as stock trl", xticks=numbers, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(plot, metadata={"Date": None})


if __name__ == "__main__":
    main()
