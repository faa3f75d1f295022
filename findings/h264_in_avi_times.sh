#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1.2 inside) gives wrong times to the frames of H.264 with B pictures in AVI.
#
# AVI stores no times of showing. The demuxer takes the decoding times for them, so that frames leave the decoder
# in the right order of pictures with the times of other frames: the second picture of 24 at 24 frames a second
# has the time of the third or fourth. `frame.time` then runs backwards. MPEG-4 Part 2 in AVI is right. A reader
# that picks "the frame at t" by `frame.time` shows other pictures than a player does; sorting the times does not
# need the packets and puts them right.
#
# Output seen:
#   mpeg4   in AVI: pictures in order: True, times ascend: True, sorted times are i / 24 from the first: True
#   libx264 in AVI: pictures in order: True, times ascend: False, sorted times are i / 24 from the first: True
# Exits 0 while this is so and 1 if it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import av
import numpy as np


def shown(codec: str) -> tuple[list[float], list[int]]:
    """Times and the drawn numbers of the frames, as one pass over the file decodes them."""
    path = f"{codec}.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=24, options={"bf": "2", "g": "24"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(24):
            grey = np.full((64, 96, 3), 8 * index + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    times, numbers = [], []
    with av.open(path) as container:
        for frame in container.decode(video=0):
            times.append(frame.time)
            numbers.append(round((frame.to_ndarray(format="rgb24").mean() - 20) / 8))
    return times, numbers


unchanged = True
for codec in ("mpeg4", "libx264"):
    times, numbers = shown(codec)
    ascend = times == sorted(times)
    even = np.allclose(np.sort(times) - min(times), np.arange(len(times)) / 24, atol=1e-3)
    print(f"{codec:7} in AVI: pictures in order: {numbers == sorted(numbers)}, times ascend: {ascend}, "
          f"sorted times are i / 24 from the first: {even}")
    unchanged &= numbers == sorted(numbers) and even and ascend == (codec == "mpeg4")
sys.exit(0 if unchanged else 1)
PY
