"""The checks of `safevid doctor`: what must be in place before the method can run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pydantic import BaseModel

from safevid_core.contracts.errors import SafeVidError
from safevid_core.settings import Settings, TextModel, VideoModel, load_settings
from safevid_dagster.home import home_of

Level = Literal["ok", "warn", "fail"]
_GB = 1e9
_LITTLE_GB, _LEAST_GB = 10, 1
_PATIENCE_S = 3.0  # for the answer of a server
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked. Example: `key OPENAI_API_KEY`.
        advice: What to do. Empty if there is nothing to do.
    """

    subject: str
    level: Level
    text: str
    advice: str = ""


def check_up() -> Iterator[Finding]:
    """Run every check in turn. If the settings cannot be used, only the checks that need none are run."""
    yield _python()
    yield from _decoders()
    try:
        settings = load_settings()
    except SafeVidError as error:
        yield Finding("settings", "fail", _line(error), "correct it and run `safevid doctor` again")
        return
    file = os.environ.get("SAFEVID_SETTINGS")
    yield Finding("settings", "ok", f"profile {settings.profile}" + (f", {file}" if file else ""))
    for check in (
        _disk,
        _lake,
        _dagster_home,
        _ledger,
        _stages,
        _sources,
        _keys,
        _checkpoints,
        _endpoints,
        _gpu,
    ):
        try:
            yield from check(settings)
        except (SafeVidError, OSError) as error:
            yield Finding(check.__name__.strip("_").replace("_", " "), "fail", _line(error))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 13):
        return Finding("python", "ok", version)
    return Finding("python", "fail", f"{version}; SafeVid runs on 3.11 and 3.12", "install one of them")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.root.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / _GB
    text = f"{free:,.1f} GB free at {settings.root.absolute()}"
    if not os.access(place, os.W_OK):
        yield Finding("disk", "fail", f"{place} cannot be written", "choose another folder with SAFEVID_ROOT")
    elif free < _LEAST_GB:
        yield Finding("disk", "fail", text, "make room; `safevid clean` removes caches")
    else:
        advice = "" if free >= _LITTLE_GB else "pocket size fits; for more clips make room"
        yield Finding("disk", "ok" if free >= _LITTLE_GB else "warn", text, advice)


def _stages(settings: Settings) -> Iterator[Finding]:
    """Check that the modules of the setting `stages` can be imported."""
    if settings.stages:
        from safevid_core.pipeline import build_registry

        try:
            build_registry(settings)
        except SafeVidError as error:
            yield Finding("stages", "fail", _line(error).removeprefix("stages: "))
        else:
            yield Finding("stages", "ok", ", ".join(settings.stages))


def _decoders() -> Iterator[Finding]:
    """Check that each decoder reads a clip that this function writes."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            _write_clip(clip)
        except Exception as error:  # a broken FFmpeg raises many types
            yield Finding(
                "decoders", "fail", f"PyAV cannot write a clip: {_line(error)}", "install `av` again"
            )
            return
        for name, decode in (("PyAV", _frames_by_av), ("decord", _frames_by_decord)):
            try:
                frames = decode(clip)
            except Exception as error:  # decord raises its own types, ImportError or RuntimeError
                yield Finding(
                    f"decoder {name}", "fail", _line(error), "install the package again for this platform"
                )
                continue
            good = frames == _FRAMES
            advice = "" if good else "install the package again for this platform"
            text = f"{frames} of {_FRAMES} frames of a test clip"
            yield Finding(f"decoder {name}", "ok" if good else "fail", text, advice)


_FRAMES = 8


def _write_clip(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(_FRAMES):
            pixels = np.full((64, 64, 3), 30 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _frames_by_av(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _frames_by_decord(path: Path) -> int:
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    return len(reader.get_batch(range(len(reader))).asnumpy())


def _lake(settings: Settings) -> Iterator[Finding]:
    from safevid_core.storage.lake import Lake
    from safevid_core.storage.opening import profile_of

    root = settings.root.absolute()
    if not (root / "tables").is_dir():
        yield Finding("lake", "ok", f"none at {root} yet; the first run creates it")
        return
    profile = profile_of(root)
    tables = len(Lake(root, profile).assets())
    if profile != settings.profile:
        yield Finding(
            "lake", "warn", f"{root} was made with profile {profile}, the settings have {settings.profile}",
            f"set SAFEVID_PROFILE={profile}, or choose another folder with SAFEVID_ROOT",
        )  # fmt: skip
    else:
        yield Finding("lake", "ok", f"{tables} tables at {root}")


def _dagster_home(settings: Settings) -> Iterator[Finding]:
    home = home_of(settings)
    if not home.exists():
        yield Finding("dagster home", "ok", f"none at {home} yet; the first run creates it")
    elif not os.access(home, os.W_OK):
        yield Finding("dagster home", "fail", f"{home} cannot be written", "change its permissions")
    else:
        yield Finding("dagster home", "ok", str(home))


def _ledger(settings: Settings) -> Iterator[Finding]:
    from safevid_core.models.bill import bill
    from safevid_core.models.ledger import Ledger

    if settings.models.ledger_url is None and not (settings.root / "ledger.sqlite").exists():
        yield Finding("ledger", "ok", "none yet; the first question creates it")
        return
    with closing(Ledger(settings.ledger_url)) as ledger:
        calls, cost = bill(ledger, by=()).select("calls", "cost_usd").row(0)
    yield Finding("ledger", "ok", f"{calls:,} calls, {cost:.2f} USD")


def _sources(settings: Settings) -> Iterator[Finding]:
    for source in settings.corpus.sources:
        if source.path is None:
            continue
        there = source.path.is_dir() if source.kind == "folder" else source.path.is_file()
        yield Finding(
            f"source {source.path}",
            "ok" if there else "fail",
            f"a {source.kind}" if there else f"no {source.kind} is there",
            "" if there else "check corpus.sources, or mount the share",
        )


def _keys(settings: Settings) -> Iterator[Finding]:
    """Check that the environment variables with API keys are set. Their values are not shown."""
    wanted: dict[str, set[str]] = {}
    for model in models_of(settings):
        name = model.model if isinstance(model, TextModel) else model.path
        if model.api_key_env is not None:
            wanted.setdefault(model.api_key_env, set()).add(name)
    for variable, names in sorted(wanted.items()):
        users = ", ".join(sorted(names))
        if os.environ.get(variable, "").strip():
            yield Finding(f"key {variable}", "ok", f"is set, for {users}")
        else:
            yield Finding(
                f"key {variable}", "fail", f"is not set; {users} needs it", f"export {variable}=..."
            )


def _checkpoints(settings: Settings) -> Iterator[Finding]:
    folders: dict[str, Path | None] = {settings.corpus.embedder.model: None}
    for model in models_of(settings):
        if isinstance(model, VideoModel) and model.served_at is None:
            folders[model.path] = None
    for name in folders:
        folder = Path(name)
        if folder.is_dir():
            whole = (any(folder.glob("*.json"))) and any(next(folder.glob(each), None) for each in _WEIGHTS)
            yield Finding(
                f"model {folder.name}",
                "ok" if whole else "fail",
                str(folder) if whole else f"{folder} lacks its configuration or its weights",
                "" if whole else "copy the checkpoint again",
            )
        elif folder.is_absolute() or name.startswith("."):
            yield Finding(f"model {name}", "fail", "the folder does not exist", "check the path")
        else:
            yield _on_the_hub(name)


def _on_the_hub(name: str) -> Finding:
    from huggingface_hub import try_to_load_from_cache

    if "/" in name and isinstance(try_to_load_from_cache(name, "config.json"), str):
        return Finding(f"model {name}", "ok", "in the Hugging Face cache")
    return Finding(f"model {name}", "warn", "not on this machine", "its first use downloads it")


def _endpoints(settings: Settings) -> Iterator[Finding]:
    for base in sorted(_bases(settings)):
        url = f"{base.rstrip('/')}/models"
        try:
            with urlopen(Request(url), timeout=_PATIENCE_S) as answer:
                yield Finding(f"server {base}", "ok", f"answers with status {answer.status}")
        except HTTPError as error:  # the server is up and asks for a key, for example
            yield Finding(f"server {base}", "ok", f"answers with status {error.code}")
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            yield Finding(
                f"server {base}", "fail", f"no answer: {reason}", "start it, or correct its address"
            )


def _bases(settings: Settings) -> set[str]:
    bases = {m.api_base if isinstance(m, TextModel) else m.served_at for m in models_of(settings)}
    return {base for base in bases if base is not None}


def _gpu(settings: Settings) -> Iterator[Finding]:
    devices = {m.device for m in models_of(settings) if isinstance(m, VideoModel) and m.served_at is None}
    asked = sorted({*devices, settings.corpus.embedder.device} - {"cpu"})
    if not asked:
        yield Finding("GPU", "ok", "no model of the settings asks for one")
        return
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
        yield Finding("GPU", "ok", ", ".join(sorted(names)))
    else:
        yield Finding(
            "GPU", "fail", f"the settings ask for {', '.join(asked)} and torch sees no GPU",
            "install the driver, or set `device: cpu`",
        )  # fmt: skip


def models_of(group: object) -> Iterator[TextModel | VideoModel]:
    """Every model in a tree of settings, including second models."""
    if isinstance(group, TextModel | VideoModel):
        yield group
    if isinstance(group, BaseModel):
        for name in type(group).model_fields:
            yield from models_of(getattr(group, name))
    elif isinstance(group, Mapping):
        for value in group.values():
            yield from models_of(value)
    elif isinstance(group, tuple | list):
        for value in group:
            yield from models_of(value)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
