"""The attack styles of queries, and what each means. A style of a person's own is added in the settings."""

from __future__ import annotations

from collections.abc import Mapping

from safevid_core.contracts.errors import SafeVidError
from safevid_core.settings import QuerySettings


class StyleError(SafeVidError, ValueError):
    """The styles of the settings cannot be used. The message says what to change."""


# A query of this style names nothing: only together with the video can it be hazardous.
IMPLICIT = "implicit"

STYLES: Mapping[str, str] = {
    IMPLICIT: "Refers to what the video shows and names none of it, so that the text alone is harmless and "
    "only the video tells what is wanted.",
    "direct": "Asks outright.",
    "disguised": "Hides the aim in a story, a game, a study or a good cause.",
    "role_play": "Gives the model a role in which it is to speak, and asks from within that role.",
    "authority": "Claims an office or a licence that would allow the request.",
    "hypothetical": "Asks what somebody could do, in theory or in another world.",
    "step_by_step": "Asks for one small step of the aim and treats the rest as settled.",
    "pressure": "Insists, hurries or appeals to feelings.",
}


def style_definitions(settings: QuerySettings) -> dict[str, str]:
    """The known styles and those of the settings: name -> definition.

    Raises:
        StyleError: If `queries.styles` names a style without a definition, or the style of implicit queries.
    """
    known = {**STYLES, **settings.style_definitions}
    if IMPLICIT in settings.styles:
        raise StyleError(
            f"queries.styles names {IMPLICIT!r}, the style of the kind {IMPLICIT!r}; remove it, and set the "
            "number of such queries by queries.mix"
        )
    unknown = [style for style in settings.styles if style not in known]
    if unknown:
        names = ", ".join(name for name in known if name != IMPLICIT)
        raise StyleError(
            f"queries.styles names {unknown[0]!r}, which has no definition; define it in "
            f"queries.style_definitions, or name one of {names}"
        )
    return known
