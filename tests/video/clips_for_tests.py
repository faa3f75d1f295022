"""Small real clips, encoded on the spot, and the sample clips where the checkout has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SAMPLES = Path(__file__).parents[3] / "shared" / "data"


def sample_files(folder: str) -> list[Path]:
    """Files of `../shared/data/<folder>` beside the checkout; none where there is no such folder."""
    root = SAMPLES / folder
    return sorted(path for path in root.iterdir() if path.suffix != ".md") if root.is_dir() else []


def counted_frames(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames whose grey level tells their number: frame i is 8 * i + 8, with a red top left corner."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames += (np.arange(count, dtype=np.uint8) * 8 + 8)[:, None, None, None]
    frames[:, : height // 4, : width // 4] = (255, 0, 0)
    return frames


def number_of(frame: np.ndarray) -> int:
    """Which of `counted_frames` a decoded frame is, from its middle."""
    height, width = frame.shape[:2]
    middle = frame[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4]
    return round((float(middle.mean()) - 8) / 8)


def write_video(
    path: Path,
    frames: np.ndarray | Sequence[np.ndarray],
    fps: int = 12,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode uint8 RGB frames `[T, H, W, 3]`; `rotation` (degrees) is written as metadata only."""
    import av

    frames = np.asarray(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_audio_only(path: Path) -> Path:
    """A second of silence in mp4."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


_BITS = 8


def numbered_frames(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames that carry their number as eight bars in the upper half: black 0, white 1, lowest bit left."""
    frames = np.full((count, height, width, 3), 90, np.uint8)
    for bit in range(_BITS):
        bar = slice(bit * width // _BITS, (bit + 1) * width // _BITS)
        frames[:, : height // 2, bar] = ((np.arange(count) >> bit & 1) * 255)[:, None, None, None]
    for index in range(count):  # something moves, so that pictures depend on each other
        left = index * 3 % (width - 16)
        frames[index, height // 2 + 8 : height - 8, left : left + 16] = (200, 60, 40)
    return frames


def drawn_number(frame: np.ndarray) -> int:
    """The number that `numbered_frames` drew."""
    height, width = frame.shape[:2]
    read = 0
    for bit in range(_BITS):
        left, right = bit * width // _BITS, (bit + 1) * width // _BITS
        edge = (right - left) // 4
        bar = frame[height // 8 : height // 2 - height // 8, left + edge : right - edge]
        read |= int(bar.mean() > 128) << bit
    return read


def plain_pass(path: Path) -> list[tuple[float, int]]:
    """Time from the first shown frame and drawn number of every frame, by decoding the whole file once."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        rate = float(stream.guessed_rate or 25)
        shown = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    times = [
        index / rate if time is None else time - (shown[0][0] or 0.0) for index, (time, _) in enumerate(shown)
    ]
    return [(round(time, 4), drawn_number(rgb)) for time, (_, rgb) in zip(times, shown, strict=True)]


def copy_stream(
    source: Path,
    target: Path,
    start_s: float = 0.0,
    offset_s: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Copy packets without decoding, from the key frame before `start_s` on, `start_s` becoming `offset_s`.

    In mp4 an edit list then hides what lies before `start_s`.
    """
    import av

    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", container_options=container_options or {}) as writer,
    ):
        stream = reader.streams.video[0]
        copied = writer.add_stream_from_template(stream)
        shift = round((start_s - offset_s) / stream.time_base)
        reader.seek(round(start_s / stream.time_base), stream=stream)
        for packet in reader.demux(stream):
            if packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copied
            writer.mux(packet)
    return target
