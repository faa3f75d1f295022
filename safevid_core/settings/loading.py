"""Settings from a profile, a user's file, the environment and overrides.

pydantic-settings reads the environment and checks the tree. The layers are merged here, from the lowest up: a
key of an API must not go to another server than the one beside which it was named, and which server that is
depends on all the layers below. The sources of pydantic-settings are merged from the top down.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as UnreadableVariable

from safevid_core.settings.corpus import Source
from safevid_core.settings.group import SettingsError
from safevid_core.settings.paths import groups_in, map_paths
from safevid_core.settings.tree import Settings

PROFILES = Path(__file__).parent / "profiles"
PACKAGE = Path(__file__).parent.parent
# Variables that choose files rather than set a field.
RESERVED_VARIABLES = ("SAFEVID_PROFILE", "SAFEVID_SETTINGS", "SAFEVID_CLIPS")
# Key that settings had before -> the key that took its place; `*` stands for a name that the user chose.
RENAMED_KEYS: dict[str, str] = {"alignment.max_answer_tokens": "alignment.max_response_tokens"}

_ENVIRONMENT = "environment"
# Settings that name the server of a model.
_SERVERS = ("api_base", "served_at")


@dataclass(frozen=True)
class _Layer:
    """The keys of one file, of the environment or of a caller.

    Attributes:
        tree: The keys, nested.
        origin: What an error calls the layer, such as the path of the file.
    """

    tree: dict[str, Any]
    origin: str


def load_settings(
    profile: str | None = None, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from a profile, a user's YAML file, the environment and overrides; the last one wins.

    Args:
        profile: Name of a file under ``profiles/``. Defaults to ``SAFEVID_PROFILE`` or ``pocket``.
        file: YAML with the keys to change. Paths in it are relative to its folder. Defaults to
            ``SAFEVID_SETTINGS`` if that is set.
        overrides: A nested mapping.

    A folder named in ``SAFEVID_CLIPS`` is added to the corpus sources.

    Raises:
        SettingsError: For a file that is missing or unreadable and for any unknown or ill-typed key.
    """
    profile = profile or os.environ.get("SAFEVID_PROFILE", "pocket")
    file = file or (Path(os.environ["SAFEVID_SETTINGS"]) if os.environ.get("SAFEVID_SETTINGS") else None)
    layers = _profiles(profile)
    if file is not None:
        layers.append(_layer(_read_yaml(file), str(file), file.absolute().parent))
    # The variable that names a default profile must not set the field.
    layers += [_environment(), _layer({**(overrides or {}), "profile": profile}, "arguments")]
    try:
        return _with_own_clips(Settings(**reduce(merge, (layer.tree for layer in layers))))
    except ValidationError as error:
        raise SettingsError(_explain(error, layers)) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings key by key, lists and scalars whole.

    An `api_key_env` belongs to the server beside which it is named. `above` does not inherit it if `above`
    sets `api_base` or `served_at`, or names a model of another provider. The `family` of a text model belongs
    to its `model`: `above` does not inherit it if it names another.
    """
    out = dict(below)
    if "model" in above and above["model"] != below.get("model"):
        out.pop("family", None)
    if _replaces_server(below, above):
        out.pop("api_key_env", None)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if nested else value
    return out


def _replaces_server(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    named = [name for name in _SERVERS if name in above]
    if any(above[name] is not None or below.get(name) is not None for name in named):
        return True
    one, other = str(below.get("model") or ""), str(above.get("model") or "")
    behind_one = any(below.get(name) is not None for name in _SERVERS)
    return "/" in other and not behind_one and one.partition("/")[0] != other.partition("/")[0]


def _layer(tree: Mapping[str, Any], origin: str, folder: Path | None = None) -> _Layer:
    """A layer whose paths are relative to a folder. None leaves them relative to the working directory."""
    return _Layer(map_paths(tree, Settings, lambda path: _locate(path, folder, origin)), origin)


def _environment() -> _Layer:
    for name in os.environ:
        if not name.startswith("SAFEVID_") or name in RESERVED_VARIABLES:
            continue
        parts = name.removeprefix("SAFEVID_").lower().split("__")
        renamed = _new_name(parts)
        if renamed:
            variable = "SAFEVID_" + renamed.upper().replace(".", "__")
            raise SettingsError(f"environment variable {name} is now {variable}; rename it")
        if parts[0] not in Settings.model_fields:
            words = _suggest(parts[0], Settings)
            raise SettingsError(f"environment variable {name} matches no setting; {words}")
    try:
        return _layer(EnvSettingsSource(Settings)(), _ENVIRONMENT)
    except UnreadableVariable as error:
        field = re.search(r'field "(\w+)"', str(error))
        prefix = f"SAFEVID_{field[1].upper()}" if field else "SAFEVID_"
        given = ", ".join(sorted(name for name in os.environ if name.startswith(prefix)))
        raise SettingsError(
            f"environment: {error}, read from {given}; write a list or a mapping as JSON"
        ) from None


def _profiles(profile: str) -> list[_Layer]:
    """A profile and those that it extends, the extending one last."""
    layers: list[_Layer] = []
    name: str | None = profile
    while name is not None:
        file = PROFILES / f"{name}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
            raise SettingsError(f"profile {name!r} does not exist; choose one of: {known}")
        tree = _read_yaml(file)
        name = tree.pop("extends", None)
        layers.append(_layer(tree, str(file)))
    return layers[::-1]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8").replace("{package}", str(PACKAGE))
        tree = yaml.safe_load(text)
    except FileNotFoundError:
        raise SettingsError(f"settings file {path} does not exist; check SAFEVID_SETTINGS") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"settings file {path} cannot be read: {reason}; correct the YAML") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"settings file {path} must hold a mapping of keys; found {type(tree).__name__}")
    odd = next((key for key in tree if not isinstance(key, str)), None)
    if odd is not None:
        raise SettingsError(f"settings file {path}: key {odd!r} is not text; correct or remove it")
    return tree


def _locate(path: str, folder: Path | None, origin: str) -> str:
    """A path with `~` expanded, absolute if the folder is known; `{root}/...` is filled in later."""
    try:
        place = Path(path).expanduser()
    except RuntimeError:
        raise SettingsError(f"{origin}: path {path!r} names no home folder; write it out") from None
    if folder is None or path.startswith("{root}"):
        return str(place)
    return str(folder / place)


def _with_own_clips(settings: Settings) -> Settings:
    """The settings with the folder of SAFEVID_CLIPS among the sources."""
    folder = os.environ.get("SAFEVID_CLIPS")
    if not folder:
        return settings
    path = Path(_locate(folder, Path.cwd(), "environment variable SAFEVID_CLIPS"))
    own = Source.model_validate({"kind": "folder", "path": path})
    corpus = settings.corpus.model_copy(update={"sources": (*settings.corpus.sources, own)})
    return settings.model_copy(update={"corpus": corpus})


def _explain(error: ValidationError, layers: Sequence[_Layer]) -> str:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    where, origin = ".".join(parts), _origin_of(parts, layers)
    if first["type"] == "extra_forbidden":
        renamed = _new_name(parts)
        if renamed:
            return f"{origin}: {where!r} is now {renamed!r}; rename it"
        return f"{origin}: unknown key {where!r}; {_suggest(parts[-1], _group_at(parts[:-1]))}"
    return f"{origin}: {where}: {first['msg'].removeprefix('Value error, ')}"


def _new_name(parts: Sequence[str]) -> str | None:
    """The key that took the place of a renamed one, with the user's names filled in."""
    key = ".".join(parts)
    for old, new in RENAMED_KEYS.items():
        if old.count(".") == key.count(".") and fnmatchcase(key, old):
            chosen = [part for part, stem in zip(parts, old.split("."), strict=True) if stem == "*"]
            return ".".join(chosen.pop(0) if stem == "*" else stem for stem in new.split("."))
    return None


def _origin_of(parts: Sequence[str], layers: Sequence[_Layer]) -> str:
    """The file or variable that gave a key, or else the one that gave the group which lacks it."""
    for end in range(len(parts), 0, -1):
        for layer in reversed(layers):
            if _holds(layer.tree, parts[:end]):
                return _variable_of(parts) if layer.origin == _ENVIRONMENT else layer.origin
    return layers[0].origin


def _holds(tree: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if isinstance(tree, list | tuple) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        else:
            return False
    return True


def _variable_of(parts: Sequence[str]) -> str:
    """The environment variable that gave a key or what holds it."""
    for end in range(len(parts), 0, -1):
        name = "SAFEVID_" + "__".join(parts[:end]).upper()
        if name in os.environ:
            return f"environment variable {name}"
    return _ENVIRONMENT


def _group_at(path: Sequence[str]) -> type[BaseModel]:
    group: type[BaseModel] = Settings
    for part in path:
        field = group.model_fields.get(part)
        inner = groups_in(field.annotation) if field is not None else []
        group = inner[0] if inner else group
    return group


def _suggest(word: str, group: type[BaseModel]) -> str:
    close = difflib.get_close_matches(word, group.model_fields, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(group.model_fields))}"
