"""Uniform frames of clips from the cache, against decoding them: clips a second, on one thread.

Ours is `uniform_frames` with a cache that has the frames. The peers decode the same frames of the same files:
`decode_uniform`, which chooses the decoder by the file; decord alone, by frame numbers; and PyAV, in one pass
up to the last frame that is wanted. What the cache gives must be equal to a fresh decode, bit by bit. The
clips are rendered ones at pocket size, 4 frames each, and the files of a folder of real clips, 8 frames each,
where there is one. Told beside: what a first decode costs with storing, and lossless forms of the pixels by
share of raw size and milliseconds a clip. Goal: at least 4 times the best peer. Run with
``python -m benchmarks.frame_cache [--clips FOLDER]``.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import print_result
from safevid_core.pocket.clips import generate_clips
from safevid_core.storage.frames import FrameCache, Frames
from safevid_core.video.decoding import decode_uniform, resize
from safevid_core.video.identity import file_sha256
from safevid_core.video.uniform_frames import uniform_frames
from tests.video.clips_for_tests import sample_files

RENDERED, POCKET_FRAMES, REAL_FRAMES, TURNS, GOAL = 48, 4, 8, 3, 4.0
SERVED_SIDE = 336  # pixels of a frame as LLaVA's vision tower takes it

Take = Callable[[Path], Any]


def by_decord(n: int) -> Take:
    """Frames by number, as model pipelines take them."""
    import decord

    def take(path: Path) -> np.ndarray:
        reader = decord.VideoReader(str(path), num_threads=1)
        chosen = ((np.arange(n) + 0.5) * len(reader) / n).astype(int)
        return reader.get_batch(chosen.tolist()).asnumpy()

    return take


def by_av(n: int) -> Take:
    """All frames in order, of which those that are wanted are converted."""
    import av

    def take(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
            container.seek(0)
            chosen = set(((np.arange(n) + 0.5) * count / n).astype(int).tolist())
            pixels = []
            for number, frame in enumerate(container.decode(stream)):
                if number in chosen:
                    pixels.append(frame.to_ndarray(format="rgb24"))
                if number >= max(chosen):
                    break
        return np.stack(pixels)

    return take


def rate_of(take: Take, clips: Sequence[Path]) -> float:
    """Clips a second, the median of the turns after one to warm up."""
    seconds = []
    for _ in range(TURNS + 1):
        started = time.perf_counter()
        for clip in clips:
            take(clip)
        seconds.append(time.perf_counter() - started)
    return len(clips) / statistics.median(seconds[1:])


def measure(name: str, clips: Sequence[Path], n: int, root: Path) -> dict[str, Any]:
    """One case."""
    hashes = {clip: file_sha256(clip) for clip in clips}
    cache = FrameCache.below(root / name.partition(",")[0])

    def read(clip: Path) -> Frames:
        return uniform_frames(clip, n, media_sha256=hashes[clip], stored=cache)

    started = time.perf_counter()
    for clip in clips:
        read(clip)
    first_s = time.perf_counter() - started
    for clip in clips:
        stored, fresh = read(clip), decode_uniform(clip, n)
        assert np.array_equal(stored.pixels, fresh.pixels), f"{clip.name}: other pixels than decoded"
        assert (stored.times_s, stored.span_s) == (fresh.times_s, fresh.span_s)
    ours = rate_of(read, clips)
    peers = {
        "decode_uniform": rate_of(lambda clip: decode_uniform(clip, n), clips),
        "decord": rate_of(by_decord(n), clips),
        "PyAV": rate_of(by_av(n), clips),
    }
    return {
        "case": f"{name}, {n} frames, clips/s",
        "ours": round(ours, 1),
        "peers": {peer: round(rate, 1) for peer, rate in peers.items()},
        "ratio": round(ours / max(peers.values()), 2),
        "clips": len(clips),
        "first time, decoded and stored": round(len(clips) / first_s, 1),
        "kB a clip": round(cache.bytes_stored() / len(clips) / 1000, 1),
    }


def forms_of(frames: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Lossless forms: share of the raw bytes, and milliseconds a clip to make and to read."""
    import pyarrow as pa
    from PIL import Image

    def to_png(pixels: np.ndarray) -> list[bytes]:
        made = []
        for frame in pixels:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
            made.append(buffer.getvalue())
        return made

    def from_png(made: list[bytes], _: int) -> np.ndarray:
        return np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in made])

    def from_npy(made: bytes, _: int) -> np.ndarray:
        return np.frombuffer(made, np.uint8).copy()

    forms: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any, int], Any]]] = {
        "raw": (lambda pixels: pixels.tobytes(), from_npy),
        "PNG, level 1": (to_png, from_png),
    }
    for name, level in (("lz4", None), ("zstd", 1), ("zstd", 3)):
        codec = pa.Codec(name, compression_level=level)
        forms[name if level is None else f"{name}, level {level}"] = (
            lambda pixels, codec=codec: codec.compress(pixels.tobytes(), asbytes=True),
            codec.decompress,
        )
    figures = {}
    for name, (make, read) in forms.items():
        started = time.perf_counter()
        made = [make(pixels) for pixels in frames]
        made_s = time.perf_counter() - started
        started = time.perf_counter()
        for each, pixels in zip(made, frames, strict=True):
            read(each, pixels.nbytes)
        read_s = time.perf_counter() - started
        size = sum(len(each) if isinstance(each, bytes) else sum(map(len, each)) for each in made)
        figures[name] = {
            "share of raw": round(size / sum(pixels.nbytes for pixels in frames), 3),
            "make ms": round(made_s / len(frames) * 1e3, 2),
            "read ms": round(read_s / len(frames) * 1e3, 2),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=Path, help="Folder of real clips. Defaults to the sample clips.")
    folder = parser.parse_args().clips
    real = sample_files("clips") if folder is None else sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        generate_clips(
            root / "clips", root / "sealed.json", seed=11, scenes=["kitchen", "street"],
            clips_per_scene=RENDERED // 2, twin_groups_per_scene=1,
        )  # fmt: skip
        rendered = sorted((root / "clips" / "media").glob("*.mp4"))
        cases = [measure("rendered clips", rendered, POCKET_FRAMES, root)]
        forms = {
            "rendered clips": forms_of([decode_uniform(clip, POCKET_FRAMES).pixels for clip in rendered])
        }
        if real:
            cases.append(measure("real clips", real, REAL_FRAMES, root))
            size = (SERVED_SIDE, SERVED_SIDE)
            served = [
                np.stack([resize(frame, size) for frame in decode_uniform(clip, REAL_FRAMES).pixels])
                for clip in real
            ]
            forms[f"real clips at {SERVED_SIDE} pixels"] = forms_of(served)
    print_result("frame_cache", "clips/s", len(rendered) + len(real), cases, goal=GOAL, forms=forms)


if __name__ == "__main__":
    main()
