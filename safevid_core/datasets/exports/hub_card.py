"""The README.md of an export for the Hugging Face Hub: the release's card with front matter that loads it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safevid_core.contracts.markdown import markdown_table
from safevid_core.datasets.exports.release_rows import ReleaseRows
from safevid_core.datasets.pair_plots import FOLDER as PLOTS
from safevid_core.datasets.pair_statistics import FILE as STATISTICS

# Licences by the names of the Hub (https://huggingface.co/docs/hub/repositories-licenses). A release whose
# clips have one licence that is not among them, or several, has the licence `other`.
_HUB_LICENCES = frozenset(
    f"cc-{kind}-{version}"
    for kind in ("by", "by-sa", "by-nc", "by-nc-sa", "by-nc-nd", "by-nd")
    for version in ("2.0", "3.0", "4.0")
) | {"cc0-1.0", "mit", "apache-2.0", "odc-by", "odbl"}
# The form that the Hub shows before access (https://huggingface.co/docs/hub/datasets-gated).
_GATE: dict[str, Any] = {
    "extra_gated_heading": "Access to preference pairs with unsafe responses",
    "extra_gated_prompt": "Rejected responses are unsafe on purpose. Use them for safety research only. The "
    "licences of the clips apply to the pairs.",
    "extra_gated_fields": {
        "Name": "text",
        "Affiliation": "text",
        "Intended use": "text",
        "I use the rejected responses for safety research only": "checkbox",
        "I do not pass the pairs on without this form": "checkbox",
    },
    "extra_gated_button_content": "Ask for access",
}
_ACCESS = """\
## Access

The front matter holds the form of a gated repository: name, affiliation, intended use and two promises. It
has no effect until the owner of the repository switches access requests on in the settings on the Hub."""
# Sections of the release's card that the export writes anew.
_OWN = re.compile(r"^## (?:What a row is|Splits)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def hub_licence(rows: ReleaseRows) -> str:
    """The licence as the Hub names it; `other` if the clips have several licences or an unlisted one."""
    (first, *others) = (licence.lower() for licence in rows.licences)
    return first if not others and first in _HUB_LICENCES else "other"


def hub_card(rows: ReleaseRows, data_files: Mapping[str, str], about: str, features: Any = None) -> str:
    """The card, with the data files of each split written out.

    `load_dataset` takes a file with a word such as `test` in its path for a split of that name, unless the
    front matter says which files belong to which split.

    Args:
        data_files: Split -> pattern below the folder.
        about: What a row of this export is, in place of the section about the release's own files.
        features: `datasets.Features` of the rows, None to let the reader find them.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    card = DatasetCard(rows.card)
    licence = hub_licence(rows)
    about_data: dict[str, Any] = {"license": licence}
    if features is not None:
        about_data |= {"features": features}
    found = card.data.to_dict()
    found |= {
        "pretty_name": f"SafeVid preference pairs {rows.version or rows.release}",
        "license": licence,
        "size_categories": [_size(rows.pairs.height)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": path} for split, path in data_files.items()],
            }
        ],
        "dataset_info": about_data,
        **_GATE,
    }
    found["tags"] = [*found.get("tags", []), "not-for-all-audiences"]
    if licence == "other":
        found |= {"license_name": "licences-of-the-clips", "license_link": "LICENSE"}
    text = _OWN.sub(lambda _: "", card.text).strip()
    sections = (
        f"## What a row is\n\n{about}",
        "## Licences of the pairs\n\nA clip's licence binds the pairs about it.\n\n"
        + markdown_table(("licence", "pairs"), rows.licences.items()),
        "## Splits\n\n"
        + markdown_table(("split", "pairs"), [(name, part.height) for name, part in rows.splits.items()])
        + "\n\nAll pairs about one source video are in one split.",
        _ACCESS,
    )
    title, _, rest = text.partition("\n\n")
    body = "\n\n".join((title, *sections, rest))
    return f"---\n{DatasetCardData(**found).to_yaml()}\n---\n\n{body}\n"


def copy_statistics(rows: ReleaseRows, folder: Path) -> None:
    """Copy what the card shows of the pair statistics: the plots and the table. Nothing if there are none."""
    for source in (rows.folder / STATISTICS, *sorted((rows.folder / PLOTS).glob("*"))):
        if source.is_file():
            target = folder / source.relative_to(rows.folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)


def licence_file(rows: ReleaseRows) -> str:
    """The text of the file LICENSE: which licence how many pairs have."""
    lines = [f"{licence}: {pairs} pairs" for licence, pairs in rows.licences.items()]
    head = "The clips have licences of their own. The column `licence` holds that of each row."
    return "\n".join((head, "", *lines)) + "\n"


def _size(rows: int) -> str:
    """The size class by the Hub's names."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if rows < bound), "1M<n<10M")
