"""A LLaVA-NeXT-Video around SmolLM2, from unchanged transformers classes.

A frame of 48 x 48 pixels has 36 patches, which are pooled to 9 visual tokens. A clip of 4 frames has 36
visual tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safevid_core.pocket.build.architectures import (
    IMAGE_SIDE,
    PATCH,
    llava_config,
    llava_processor,
    vision_config,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

FRAMES = 4
TOKENS_A_FRAME = (IMAGE_SIDE // PATCH // 2) ** 2

_VISION_HIDDEN = 128
_VISION_LAYERS = 3
_VISION_HEADS = 4
_VISION_MLP = 384
_VIDEO, _IMAGE = "<video>", "<image>"
# A token that the language model knows and never writes in a chat. The two new tokens copy its embedding,
# because the head shares the embedding: a random row could be written in a response.
_UNWRITTEN = "<gh_stars>"
_CONTENT = "message['content']"
# A message's content as text, also where it is a list of parts.
_PARTS = "(message['content'] if message['content'] is string else parts.text)"
_FLATTEN = (
    "{% set parts = namespace(text='') %}"
    "{% if message['content'] is not string %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{% set parts.text = parts.text + '<video>\n' %}"
    "{% elif part['type'] == 'image' %}{% set parts.text = parts.text + '<image>\n' %}"
    "{% elif part['type'] == 'text' %}{% set parts.text = parts.text + part['text'] %}{% endif %}"
    "{% endfor %}{% endif %}"
)
_LOOP = "{% for message in messages %}"


def multimodal_template(published: str) -> str:
    """The published chat template, for messages whose content may be a list of parts.

    Messages of text only are rendered as by the published template.

    Raises:
        ValueError: If the published template is not built as expected.
    """
    if published.count(_LOOP) != 1 or published.count(_CONTENT) != 1:
        raise ValueError("the chat template of SmolLM2 has changed; adapt `multimodal_template`")
    return published.replace(_CONTENT, _PARTS).replace(_LOOP, _LOOP + _FLATTEN)


def create(
    language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The video model in float32 and its processor. Tower and projector are random, the rest is SmolLM2.

    Args:
        language_model: SmolLM2 as a causal language model. Its weights are copied.
        tokenizer: Its tokenizer. Two tokens are added, one for a video and one for an image.
    """
    import torch
    from transformers import LlavaNextVideoForConditionalGeneration

    known = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [_VIDEO, _IMAGE]}, False)
    video, image = tokenizer.convert_tokens_to_ids([_VIDEO, _IMAGE])
    text_config = type(language_model.config)(
        **{**language_model.config.to_dict(), "vocab_size": len(tokenizer)}
    )
    vision = vision_config(_VISION_HIDDEN, _VISION_MLP, _VISION_LAYERS, _VISION_HEADS)
    config = llava_config(vision, text_config, image, video)
    model = LlavaNextVideoForConditionalGeneration(config).float()
    weights = language_model.model.state_dict()
    table = weights["embed_tokens.weight"]
    unwritten = table[tokenizer.convert_tokens_to_ids(_UNWRITTEN)]
    weights["embed_tokens.weight"] = torch.cat([table[:known], unwritten.repeat(len(tokenizer) - known, 1)])
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    processor = llava_processor(tokenizer, multimodal_template(str(tokenizer.chat_template)))
    generation = model.generation_config
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    generation.eos_token_id = tokenizer.eos_token_id
    generation.do_sample = False
    return model, processor
