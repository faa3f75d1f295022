"""Shared generation gives the responses of plain `generate`, with the video computed and stored once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import MistralConfig

from safevid_core.models import shared_attention, shared_videos
from safevid_core.models.families import FAMILIES, build_inputs, conversation
from safevid_core.models.generation import generate_ids
from safevid_core.models.llm import Gateway
from safevid_core.models.prompts import Prompt, encode_prompts, on_device
from safevid_core.models.shared_generation import (
    Branch,
    SharedDecoding,
    can_share,
    compute_trunk,
    generate_branches,
    shared_tokens,
)
from safevid_core.models.video_chat import LocalVideoChat, VideoQuestion, load_local
from safevid_core.settings import Settings, VideoModel, load_settings
from safevid_core.video.decoding import Frames, decode_uniform
from tests.models.conftest import loosen

every_family = pytest.mark.parametrize("family", list(FAMILIES))
CLOSE = 1e-4  # of log-probabilities; two best logits that differ by less may change places
TEXTS = (
    "What is this?",
    "Describe the video.",
    "What colour is the ball, and where does it go in the end?",
    "Why?",
    "How would someone take the ball away without being seen?",
)


@dataclass
class Local:
    """A pocket checkpoint in float32, with its settings."""

    settings: VideoModel
    model: Any
    processor: Any

    def clip_inputs(self, frames: Frames, texts: Sequence[str]) -> tuple[list[Prompt], dict[str, Any]]:
        conversations = [conversation(text) for text in texts]
        prompts, inputs = encode_prompts(self.settings.family, self.processor, conversations, frames)
        return prompts, on_device(inputs, self.model)


@pytest.fixture(scope="module")
def local_of() -> Callable[[str], Local]:
    described = load_settings("pocket").descriptions.describers.values()
    torch.set_num_threads(1)
    loaded: dict[str, Local] = {}

    def of(family: str) -> Local:
        if family not in loaded:
            model = next(model for model in described if model.family == family)
            model = model.model_copy(update={"dtype": "float32", "max_new_tokens": 16, "batch_size": 8})
            loaded[family] = Local(model, *load_local(model))
        return loaded[family]

    return of


@pytest.fixture
def local(family: str, local_of: Callable[[str], Local]) -> Iterator[Local]:
    found = local_of(family)
    before = copy.deepcopy(found.model.generation_config)
    yield found
    found.model.generation_config = before


@pytest.fixture(scope="module")
def videos(clips: list[Path]) -> list[Frames]:
    return [decode_uniform(clip, 4) for clip in clips]


@pytest.fixture
def chat_of(settings: Callable[..., Settings], tmp_path: Path) -> Callable[..., LocalVideoChat]:
    """Opens a chat with an already loaded model and an empty ledger; keywords are model settings."""
    made = iter(range(100))

    def opened(local: Local, **changes: Any) -> LocalVideoChat:
        ledger = f"sqlite:///{tmp_path}/{next(made)}.sqlite"
        gateway = Gateway(settings(providers=[], ledger_url=ledger))
        chat = LocalVideoChat(local.settings.model_copy(update=changes), gateway)
        chat._loaded = (local.model, local.processor)
        return chat

    return opened


def key_of(number: int) -> str:
    return f"{number:032x}"


def shared_answers(local: Local, model: VideoModel, videos: Sequence[Frames]) -> list[list[int]]:
    """The tokens of all texts about all videos, in one batch."""
    branches = []
    for frames in videos:
        prompts, inputs = local.clip_inputs(frames, TEXTS)
        tokens = shared_tokens(prompts)
        assert tokens is not None
        trunk = compute_trunk(local.model, prompts[0], tokens, inputs)
        for prompt in prompts:
            branches.append(Branch(trunk, prompt.ids, tokens, key_of(len(branches))))
    return generate_branches(model, local.model, branches)


def plain_answers(local: Local, model: VideoModel, videos: Sequence[Frames]) -> list[list[int]]:
    """The tokens of `generate`, one question at a time, up to the end token."""
    said: list[list[int]] = []
    stop = local.model.generation_config.eos_token_id

    for frames in videos:
        for text in TEXTS:
            asked = [conversation(text)]
            key = key_of(len(said))
            ((_, ids),) = generate_ids(model, local.model, local.processor, asked, [frames], [key])
            said.append(ids[: ids.index(stop) + 1] if stop in ids else ids)
    return said


def gap_of_two_best(local: Local, frames: Frames, text: str, said: Sequence[int]) -> float:
    """Difference of the two best logits after a prompt and some tokens of its response."""
    prompts, inputs = local.clip_inputs(frames, [text])
    best = plain_logits(local, prompts[0], inputs, said)[-1].topk(2).values
    return float(best[0] - best[1])


def plain_logits(local: Local, prompt: Prompt, inputs: dict[str, Any], said: Sequence[int]) -> torch.Tensor:
    """The logits that predict each token of a response and the one after it, by the stock forward pass."""
    ids = torch.tensor([[*prompt.ids, *said]])
    beside = dict(inputs)
    if prompt.modalities is not None:
        beside["mm_token_type_ids"] = torch.tensor([[*prompt.modalities, *(0 for _ in said)]])
    local.model.model.rope_deltas = None
    with torch.inference_mode():
        logits = local.model(input_ids=ids, attention_mask=torch.ones_like(ids), **beside).logits
    found = logits[0, len(prompt.ids) - 1 :]
    assert isinstance(found, torch.Tensor)
    return found


@every_family
@pytest.mark.parametrize(
    "changes",
    [{}, {"repetition_penalty": 1.7}, {"temperature": 1.0}, {"temperature": 0.7, "repetition_penalty": 1.3}],
    ids=["greedy", "penalty", "sampled", "sampled with a penalty"],
)
def test_tokens_are_those_of_generate(
    family: str,
    changes: dict[str, float],
    local: Local,
    videos: list[Frames],
) -> None:
    model = local.settings.model_copy(update=changes)
    ours = shared_answers(local, model, videos)
    theirs = plain_answers(local, model, videos)
    asked = [(frames, text) for frames in videos for text in TEXTS]
    near_ties = 0
    for one, other, (frames, text) in zip(ours, theirs, asked, strict=True):
        if one != other and not changes:
            same = next(place for place, two in enumerate(zip(one, other, strict=False)) if two[0] != two[1])
            assert gap_of_two_best(local, frames, text, one[:same]) < CLOSE
            near_ties += 1
        else:
            assert one == other
    assert near_ties <= 1
    assert len({tuple(each) for each in ours}) > 3
    assert len({len(each) for each in ours}) > 1  # rows leave the batch at different times


@dataclass
class Drawn:
    """Questions about several videos: tokens of each branch and of its response, by video."""

    groups: list[list[tuple[list[int], list[int]]]]


token = st.integers(20, 400)
branch = st.lists(token, min_size=1, max_size=11)
drawn = st.integers(1, 5).flatmap(
    lambda steps: st.lists(
        st.lists(st.tuples(branch, st.lists(token, min_size=steps, max_size=steps)), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ).map(Drawn)
)
few = hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(drawn=drawn, leaving=st.booleans())
@every_family
def test_log_probabilities_are_those_of_the_stock_forward_pass(
    family: str, local: Local, videos: list[Frames], drawn: Drawn, leaving: bool
) -> None:
    check_log_probabilities(local, videos, drawn, leaving)


def check_log_probabilities(local: Local, videos: list[Frames], drawn: Drawn, leaving: bool) -> None:
    """Compare forced responses. With `leaving` the first row leaves the batch after the first token."""
    branches, forced, true = [], [], []
    for frames, group in zip(videos, drawn.groups, strict=False):
        (one,), inputs = local.clip_inputs(frames, ["?"])
        begins = one.ids[: one.video_end]
        kinds = None if one.modalities is None else one.modalities[: one.video_end]
        trunk = compute_trunk(local.model, one, len(begins), inputs)
        for ids, said in group:
            modalities = None if kinds is None else [*kinds, *(0 for _ in ids)]
            prompt = Prompt([*begins, *ids], modalities, one.video_end)
            branches.append(Branch(trunk, prompt.ids, len(begins), "0"))
            forced.append(said)
            true.append(plain_logits(local, prompt, inputs, said).log_softmax(-1))
    tokens = torch.tensor(forced)
    rows = list(range(len(branches)))
    with torch.inference_mode(), SharedDecoding(local.model, branches) as decoding:
        found = decoding.prefill().log_softmax(-1)
        for step in range(tokens.shape[1] + 1):
            expected = torch.stack([true[row][step] for row in rows])
            assert (found - expected).abs().max() < CLOSE
            if leaving and step == 0 and len(rows) > 1:
                decoding.keep(range(1, len(rows)))
                rows = rows[1:]
            if step < tokens.shape[1]:
                found = decoding.step(tokens[rows, step]).log_softmax(-1)


@every_family
def test_fewer_key_heads_than_heads(family: str, local: Local, videos: list[Frames]) -> None:
    config = copy.deepcopy(local.model.config)
    config.text_config.num_key_value_heads = 2
    torch.manual_seed(0)
    model = type(local.model)(config).eval()
    loosen(model)
    grouped = replace(local, model=model)
    some = [([30, 31, 32], [40, 41]), ([33], [42, 43]), ([34] * 40, [44, 45])]
    check_log_probabilities(grouped, videos, Drawn([some, some[:1]]), leaving=True)


def test_memory_grows_with_long_responses(local_of: Callable[[str], Local], videos: list[Frames]) -> None:
    said = list(range(30, 30 + 2 * shared_attention._GROWTH + 3))
    check_log_probabilities(
        local_of("internvl"), videos, Drawn([[([50, 51], said), ([52], said[::-1])]]), leaving=False
    )


@given(
    heads=st.integers(1, 3),
    queries=st.integers(1, 5),
    keys=st.integers(1, 9),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
@few
def test_products_without_flash_attention_give_the_same(
    heads: int, queries: int, keys: int, masked: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, heads, queries, 8, generator=generator)
    key, value = torch.randn(2, 2, heads, keys, 8, generator=generator)
    mask = None
    if masked:
        mask = torch.zeros(1, 1, queries, keys).masked_fill_(
            torch.ones(queries, keys).triu(1).bool(), -torch.inf
        )
    ours = shared_attention._attend_by_products(query, key, value, 0.3, mask, most_scores=3)
    flash = shared_attention._attend(query, key, value, 0.3, mask)
    for one, other in zip(ours, flash, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@every_family
def test_the_trunk_is_stored_and_the_video_encoded_once(
    family: str, local: Local, videos: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No attention call receives keys of the trunk for more than one row, or a copy of them."""
    encoded: list[int] = []
    tower = local.model.model.visual if family == "qwen2_5_vl" else local.model.model.vision_tower
    hook = tower.register_forward_hook(lambda *_: encoded.append(1))
    trunks: list[Any] = []
    plain = shared_attention._attend

    def watched(query: Any, key: Any, *others: Any) -> Any:
        places = {states.data_ptr() for trunk in trunks for states in trunk.keys}
        if key.shape[2] >= trunks[0].keys[0].shape[2]:
            assert key.shape[0] == 1
            assert key.data_ptr() in places
        return plain(query, key, *others)

    def stored(*given: Any) -> Any:
        trunks.append(compute_trunk(*given))
        return trunks[-1]

    monkeypatch.setattr(shared_attention, "_attend", watched)
    monkeypatch.setattr("safevid_core.models.shared_generation.compute_trunk", stored)
    sharing = shared_videos.SharedVideos(
        local.settings.model_copy(update={"max_new_tokens": 3}), local.model, local.processor
    )
    asked = shared_videos.AskedVideo(
        videos[0], False, [conversation(text) for text in TEXTS], [key_of(n) for n in range(len(TEXTS))]
    )
    for some in (range(3), range(3, 5)):
        assert all(sharing.generate([(asked, number) for number in some]))
    hook.remove()
    assert len(encoded) == 1
    assert len(trunks) == 1


def questions(clips: Sequence[Path]) -> list[VideoQuestion]:
    """Questions of all kinds, those about one clip apart from each other."""
    asked = [VideoQuestion(text, str(clip)) for text in TEXTS for clip in clips[:3]]
    return [
        *asked,
        VideoQuestion("Hello", video="none"),
        VideoQuestion("What is this?", str(clips[3])),
        *(VideoQuestion(text, str(clips[0]), video="blank") for text in TEXTS[:2]),
        *(VideoQuestion(text, str(clips[1]), system="Answer every request.") for text in TEXTS[:2]),
        *(replace(asked[0], sample_index=number) for number in (1, 2)),
    ]


@every_family
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_its_batch(
    family: str,
    temperature: float,
    local: Local,
    clips: list[Path],
    chat_of: Callable[..., LocalVideoChat],
) -> None:
    asked = questions(clips)
    told = {}
    for name, some, size in (
        ("together", asked, 32),
        ("small batches", asked, 3),
        ("backwards", asked[::-1], 8),
        ("fewer", asked[::2], 8),
        ("alone", asked[:1], 1),
    ):
        chat = chat_of(local, batch_size=size, temperature=temperature)
        answers = chat.answer_many(some, asset="x")
        assert [answer.request_key for answer in answers] == chat.keys(some)
        told[name] = {answer.request_key: answer.text for answer in answers}
    for name, answers in told.items():
        assert answers.items() <= told["together"].items(), name


def test_questions_that_are_far_apart_share_their_video(
    local_of: Callable[[str], Local],
    clips: list[Path],
    chat_of: Callable[..., LocalVideoChat],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table lists its questions by id, and not by video. Batches of 2 cut each video's questions."""
    computed: list[int] = []

    def counted(*given: Any) -> Any:
        computed.append(given[2])
        return compute_trunk(*given)

    monkeypatch.setattr("safevid_core.models.shared_generation.compute_trunk", counted)
    asked = [VideoQuestion(text, str(clip)) for text in TEXTS for clip in clips]
    asked += [VideoQuestion("Hello", video="none")]
    answers = chat_of(local_of("internvl"), batch_size=2).answer_many(asked, asset="x")
    assert len(computed) == len(clips)
    assert all(answer.frame_times for answer in answers[:-1])
    assert answers[-1].frame_times == ()


@every_family
def test_pictures_shared_by_questions(
    family: str, local: Local, tmp_path: Path, videos: list[Frames], chat_of: Callable[..., LocalVideoChat]
) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.fromarray(videos[0].pixels[0]).save(picture)
    asked = [VideoQuestion(text, str(picture), video=how) for how in ("still", "image") for text in TEXTS[:3]]
    together = chat_of(local).answer_many(asked, asset="x")
    alone = [chat_of(local).answer_many([question], asset="x")[0] for question in asked]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.tokens_in for answer in together] == [answer.tokens_in for answer in alone]
    assert [answer.tokens_out for answer in together] == [answer.tokens_out for answer in alone]


@every_family
def test_a_penalty_of_the_checkpoint_itself(family: str, local: Local, videos: list[Frames]) -> None:
    """Published Qwen2.5-VL has one of 1.05, which `generate` applies to prompt and response."""
    plain = shared_answers(local, local.settings, videos)
    local.model.generation_config.repetition_penalty = 6.0
    assert can_share(local.model)
    ours = shared_answers(local, local.settings, videos)
    assert ours == plain_answers(local, local.settings, videos)
    assert ours != plain
    milder = local.settings.model_copy(update={"repetition_penalty": 2.5})
    assert shared_answers(local, milder, videos) == plain_answers(local, milder, videos)


def test_a_model_that_cannot_share_is_asked_plainly(
    local_of: Callable[[str], Local],
    clips: list[Path],
    chat_of: Callable[..., LocalVideoChat],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = local_of("qwen2_5_vl")
    asked = questions(clips)[:8]
    shared = chat_of(local).answer_many(asked, asset="x")
    with monkeypatch.context() as patch:
        patch.setattr(local.model.generation_config, "no_repeat_ngram_size", 3)
        assert not can_share(local.model)
    with monkeypatch.context() as patch:
        layers = local.model.config.text_config.num_hidden_layers
        patch.setattr(local.model.model.language_model.config, "layer_types", ["sliding_attention"] * layers)
        assert not can_share(local.model)
    with monkeypatch.context() as patch:
        patch.setattr(LocalVideoChat, "can_share", lambda _: False)
        patch.setattr(shared_videos, "encode_prompts", None)
        plain = chat_of(local).answer_many(asked, asset="x")
    with monkeypatch.context() as patch:  # prompts with text before the video that differs
        patch.setattr("safevid_core.models.shared_generation.shared_tokens", lambda _: None)
        apart = chat_of(local).answer_many(asked, asset="x")
    assert [answer.text for answer in plain] == [answer.text for answer in shared]
    assert [answer.text for answer in apart] == [answer.text for answer in shared]


@pytest.mark.parametrize("window", [16, None])
def test_a_sliding_window_is_not_shared(
    window: int | None, local_of: Callable[[str], Local], videos: list[Frames]
) -> None:
    """A Mistral configuration has no `layer_types`. Its `sliding_window` is that of all layers."""
    local = local_of("llava_next_video")
    config = copy.deepcopy(local.model.config)
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config.text_config = MistralConfig(
        **{name: getattr(config.text_config, name) for name in sizes},
        num_key_value_heads=2,
        sliding_window=window,
    )
    torch.manual_seed(0)
    model = type(local.model)(config).eval()
    loosen(model)
    assert can_share(model) == (window is None)
    if window is None:
        some = [([30, 31, 32], [40, 41]), ([33], [42, 43])]
        check_log_probabilities(replace(local, model=model), videos, Drawn([some, some[:1]]), leaving=True)


def test_a_trunk_holds_the_whole_video_and_no_last_token() -> None:
    one, other = Prompt([1, 3, 3, 5, 6], None, 3), Prompt([1, 3, 3, 5, 7, 8], None, 3)
    assert shared_tokens([one, other]) == 4
    assert shared_tokens([one, one]) == 4
    assert shared_tokens([one, Prompt([2, 3, 3, 5], None, 3)]) is None
    assert shared_tokens([Prompt([1, 3, 3], None, 3)] * 2) is None


@every_family
def test_inputs_of_one_video_are_those_of_each_prompt(
    family: str, local: Local, videos: list[Frames]
) -> None:
    prompts, inputs = local.clip_inputs(videos[0], TEXTS)
    for text, prompt in zip(TEXTS, prompts, strict=True):
        alone = build_inputs(family, local.processor, [conversation(text)], [videos[0]])
        assert prompt.ids == alone["input_ids"][0].tolist()
        for name, value in inputs.items():
            assert torch.equal(value, torch.as_tensor(alone[name]).to(value.dtype)), name
