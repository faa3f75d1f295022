"""How pages are made from templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def template_environment(folder: Path, autoescape: bool = True) -> Any:
    """The jinja2 environment of a folder of templates; a name that a page is not given is an error.

    Args:
        autoescape: Whether values are escaped for HTML. The templates' names end in .j2, so it cannot be told
            by their extension.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
