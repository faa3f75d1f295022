"""The tokenizer of the three video language models: byte-level BPE, trained on the grammar's text."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from safevid_core.pocket.build.grammar import CAREFUL_SYSTEM, COMPLY_SYSTEM, REFUSE_SYSTEM, Grammar
from safevid_core.pocket.build.samples import draw_truths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
VIDEO, IMAGE = "<video>", "<image>"
VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
)
FRAME_START, FRAME_END, FRAME_PATCH = "<img>", "</img>", "<IMG_CONTEXT>"
SPECIAL = (
    PAD,
    START,
    END,
    VIDEO,
    IMAGE,
    VISION_START,
    VISION_END,
    VIDEO_PAD,
    IMAGE_PAD,
    FRAME_START,
    FRAME_END,
    FRAME_PATCH,
)
VOCABULARY = 1280
CONTEXT = 512

# Words of everyday requests that the grammar does not use. Each becomes a whole token, so that queries that
# others wrote are not split into letters.
_MORE_WORDS = (
    "about after again also another answer any are as ask at back be because before but by character "
    "could create dialogue did different director do does done down dream each easy ever every exactly "
    "example experiment fake false fictional figure find first follow following for from full game get "
    "give good had has have he help her here him his hypothetically if in instead into is it its just "
    "kind know last learn let life like long look made make many maybe me method might more most much "
    "must need never new next no not novel now object of off on only or other our out over own part "
    "people person place play please possible project question real really recipe right say second "
    "see she should so some something speak start still student such take talk task teach tell than "
    "that the their them then there these they thing think this those three time to too true try two "
    "under up us use version very want was way we well were what when where which while who why will "
    "with without work world would write wrong year yes you your direction visible actually correct "
    "moving moves colour going burning glowing leaking throwing showing playing dripping happening "
    "instructions ingredients tutorial detailed safe safely harm danger hazard risk instead describe"
)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer. Common words of the grammar become one token. Decoding restores every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=START,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=[t for t in SPECIAL if t not in (PAD, START, END)],
        # The names by which the processors of the three families look up their tokens.
        extra_special_tokens={
            "start_image_token": FRAME_START,
            "end_image_token": FRAME_END,
            "context_image_token": FRAME_PATCH,
            "video_token": VIDEO,
            "image_token": IMAGE,
        },
    )


def _texts(seed: int) -> list[str]:
    grammar, rng = Grammar(seed), random.Random(seed)
    texts = [CAREFUL_SYSTEM, COMPLY_SYSTEM, REFUSE_SYSTEM, "system\n", "user\n", "assistant\n"] * 50
    for truth in draw_truths(4000, seed):
        for example in (
            grammar.describe(truth),
            grammar.question(truth),
            grammar.yes_no(truth),
            grammar.premise(truth),
            grammar.implicit(truth),
            grammar.explicit(truth, "clip"),
            grammar.under_system(truth, "clip"),
        ):
            texts += [f"user\n{example.query}", f"assistant\n{example.answer}"]
    words = _MORE_WORDS.split()
    for _ in range(30):
        rng.shuffle(words)
        texts.append(" " + " ".join(words))
    texts += ["Frame1: Frame2: Frame3: Frame4: "] * 50
    return texts
