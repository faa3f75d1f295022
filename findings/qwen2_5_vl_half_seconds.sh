#!/usr/bin/env bash
# transformers 4.57.3 puts all frames of a Qwen2.5-VL video at one time where two grids are less than 1 s apart.
#
# The model's temporal positions are grid index x seconds a grid x tokens a second (2 in the published checkpoints).
# 4.57.3 casts the seconds to an integer first, so that 0.5 s becomes 0 and 1.9 s becomes 1; the processor hands
# over fractions, as any video sampled at more than two frames a second gives. From 5.x on fractions count.
#
# Output seen (4 grids; the time of each):
#   0.5 s a grid: 0 0 0 0 (by the formula: 0 1 2 3)
#   1.0 s a grid: 0 2 4 6 (by the formula: 0 2 4 6)
#   1.9 s a grid: 0 2 4 6 (by the formula: 0 3 7 11)
# Exits 0 while this is so and 1 if it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q transformers==4.57.3 torch==2.13.0 numpy
cd "$work"
venv/bin/python - <<'PY'
import sys

import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

text = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 64, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
}
vision = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
    "tokens_per_second": 2, "spatial_merge_size": 2,
}
START, VIDEO = 60, 61
config = Qwen2_5_VLConfig(
    text_config=text, vision_config=vision, vision_start_token_id=START, video_token_id=VIDEO, image_token_id=62
)
model = Qwen2_5_VLModel(config)
ids = torch.tensor([[START] + [VIDEO] * 4 + [5, 6]])  # four grids of one token each, then text
grid = torch.tensor([[4, 2, 2]])
seen = {}
for seconds in (0.5, 1.0, 1.9):
    positions, _ = model.get_rope_index(ids, None, grid, second_per_grid_ts=torch.tensor([seconds]))
    times = (positions[0, 0, 1:5] - positions[0, 0, 1]).tolist()
    seen[seconds] = times
    formula = [int(index * seconds * 2) for index in range(4)]
    print(f"{seconds} s a grid: {' '.join(map(str, times))} (by the formula: {' '.join(map(str, formula))})")
expected = {0.5: [0, 0, 0, 0], 1.0: [0, 2, 4, 6], 1.9: [0, 2, 4, 6]}
sys.exit(0 if seen == expected else 1)
PY
