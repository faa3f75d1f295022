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
