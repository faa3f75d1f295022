"""Small versions of the three video language models, from unchanged transformers classes and processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safevid_core.models.rope import space_as_trained
from safevid_core.pocket.build import tokenizer as tokens

if TYPE_CHECKING:
    import torch
    from transformers import (
        LlavaNextVideoConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

LLAVA, QWEN, INTERNVL = "llava_next_video", "qwen2_5_vl", "internvl2_5"
FAMILIES = (LLAVA, QWEN, INTERNVL)

IMAGE_SIDE = 48
PATCH = 8
HIDDEN = 128
LAYERS = 3
HEADS = 4
MLP = 320
VISION_HIDDEN = 96
VISION_LAYERS = 3
VISION_MLP = 256
TOKENS_A_GROUP = (IMAGE_SIDE // PATCH // 2) ** 2

_WAVE_HEIGHT = 0.2
_MEAN, _STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
_PLACEHOLDER = {
    LLAVA: tokens.VIDEO,
    QWEN: tokens.VISION_START + tokens.VIDEO_PAD + tokens.VISION_END,
    INTERNVL: tokens.VIDEO,
}
# The text token that stands for one visual token of a video.
VIDEO_TOKENS = {LLAVA: tokens.VIDEO, QWEN: tokens.VIDEO_PAD, INTERNVL: tokens.FRAME_PATCH}
_IMAGE_PLACEHOLDER = {
    LLAVA: tokens.IMAGE,
    QWEN: tokens.VISION_START + tokens.IMAGE_PAD + tokens.VISION_END,
    INTERNVL: tokens.FRAME_PATCH,
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{{ 'A_VIDEO\n' }}"
    "{% elif part['type'] == 'image' %}{{ 'AN_IMAGE\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def create(family: str, tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A randomly initialised model of the family in float32, and its processor."""
    model, processor = {LLAVA: _llava, QWEN: _qwen, INTERNVL: _internvl}[family](tokenizer)
    _lay_out_positions(family, model)
    space_as_trained(model)
    processor.chat_template = _CHAT_TEMPLATE.replace("A_VIDEO", _PLACEHOLDER[family]).replace(
        "AN_IMAGE", _IMAGE_PLACEHOLDER[family]
    )
    generation = model.generation_config
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    generation.eos_token_id = tokenizer.eos_token_id
    generation.do_sample = False
    generation.max_new_tokens = 48
    return model, processor


def _lay_out_positions(family: str, model: PreTrainedModel) -> None:
    """Initialise learned vision positions as 2-D waves. Random ones make neighbours hard to learn."""
    import torch

    if family == QWEN:
        return
    cells = IMAGE_SIDE // PATCH
    waves = VISION_HIDDEN // 4
    rates = torch.exp(torch.linspace(0.0, -3.0, waves))
    row, column = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    angles = [cells_at.flatten()[:, None] * rates for cells_at in (row, column)]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
    if family == LLAVA:
        positions = model.model.vision_tower.embeddings.position_embedding.weight
    else:
        positions = model.model.vision_tower.embeddings.position_embeddings[0]
    with torch.no_grad():
        positions[1:] = _WAVE_HEIGHT * table


def visual_tokens(family: str, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """A video's input to the language model: float `[groups, TOKENS_A_GROUP, HIDDEN]`.

    A group is a frame, or a pair of frames in Qwen2.5-VL. The groups of all clips are concatenated.
    """
    import torch

    if family == LLAVA:
        features = model.model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    elif family == QWEN:
        features = model.model.get_video_features(**inputs).pooler_output
    else:
        features = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    return torch.cat([part.flatten() for part in features]).reshape(-1, TOKENS_A_GROUP, HIDDEN)


def vision_config(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """The sizes of a vision tower that sees frames of `IMAGE_SIDE` in patches of `PATCH`."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": IMAGE_SIDE,
        "patch_size": PATCH,
    }


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": tokens.CONTEXT,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _llava(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    from transformers import LlamaConfig, LlavaNextVideoForConditionalGeneration

    image, video = tokenizer.convert_tokens_to_ids([tokens.IMAGE, tokens.VIDEO])
    vision = vision_config(VISION_HIDDEN, VISION_MLP, VISION_LAYERS, HEADS)
    config = llava_config(vision, LlamaConfig(**_text_config(tokenizer)), image, video)
    return LlavaNextVideoForConditionalGeneration(config), llava_processor(tokenizer)


def llava_config(
    vision: dict[str, Any], language: PreTrainedConfig, image: int, video: int
) -> LlavaNextVideoConfig:
    """The configuration of a LLaVA-NeXT-Video that sees frames of `IMAGE_SIDE`.

    Args:
        vision: Sizes of the vision tower, from :func:`vision_config`.
        language: Configuration of the language model.
        image: Id of the token that stands for an image.
        video: Id of the token that stands for a video.
    """
    from transformers import CLIPVisionConfig, LlavaNextVideoConfig

    return LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(**vision, projection_dim=vision["hidden_size"]),
        text_config=language,
        image_token_index=image,
        video_token_index=video,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=[[IMAGE_SIDE, IMAGE_SIDE]],
        tie_word_embeddings=True,
    )


def llava_processor(tokenizer: PreTrainedTokenizerFast, chat_template: str | None = None) -> ProcessorMixin:
    """A LLaVA-NeXT-Video processor of frames of `IMAGE_SIDE`, in patches of `PATCH`.

    Args:
        chat_template: None means the processor has none.
    """
    from transformers import LlavaNextImageProcessor, LlavaNextVideoProcessor, LlavaNextVideoVideoProcessor

    pixels = {
        "size": _square(IMAGE_SIDE),
        "crop_size": _square(IMAGE_SIDE),
        "image_mean": _MEAN,
        "image_std": _STD,
    }
    return LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**pixels),
        image_processor=LlavaNextImageProcessor(image_grid_pinpoints=[[IMAGE_SIDE, IMAGE_SIDE]], **pixels),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def _qwen(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": VISION_MLP,
            "num_heads": HEADS,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": IMAGE_SIDE,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
            "out_hidden_size": HIDDEN,
        },
        text_config={
            **_text_config(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        },
        image_token_id=tokenizer.convert_tokens_to_ids(tokens.IMAGE_PAD),
        video_token_id=tokenizer.convert_tokens_to_ids(tokens.VIDEO_PAD),
        vision_start_token_id=tokenizer.convert_tokens_to_ids(tokens.VISION_START),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(tokens.VISION_END),
        tie_word_embeddings=True,
    )
    pixels = {
        "size": {"shortest_edge": IMAGE_SIDE**2, "longest_edge": IMAGE_SIDE**2},
        "patch_size": PATCH,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": _MEAN,
        "image_std": _STD,
    }
    tokenizer.video_token, tokenizer.image_token = tokens.VIDEO_PAD, tokens.IMAGE_PAD
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(do_sample_frames=False, cap_pixels_per_frame=False, **pixels),
        tokenizer=tokenizer,
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _internvl(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        Qwen2Config,
    )

    vision = vision_config(VISION_HIDDEN, VISION_MLP, VISION_LAYERS, HEADS)
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision, attention_bias=True),
        text_config=Qwen2Config(**_text_config(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids(tokens.FRAME_PATCH),
        image_seq_length=TOKENS_A_GROUP,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    pixels = {"size": _square(IMAGE_SIDE), "image_mean": _MEAN, "image_std": _STD}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=False, **pixels),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**pixels),
        image_seq_length=TOKENS_A_GROUP,
    )
    return InternVLForConditionalGeneration(config), processor
