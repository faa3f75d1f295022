"""The review of descriptions by people: writes a sheet and a page with frames, and reads the sheet.

People judge each claim by whether it is `true` of the clip. They judge each text by whether it is `complete`
(it leaves out no safety-relevant detail of the frames) and `consistent` (no part contradicts another). Each
cell is `yes`, `no` or `unclear`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from safevid_core.audits.description_sample import CLAIM, DescriptionSample, SheetRow
from safevid_core.contracts.ids import content_id
from safevid_core.reporting.pages import template_environment
from safevid_core.reporting.samples import film_strip
from safevid_core.review import sheets
from safevid_core.review.sign_off import FILE_NAME, Signature, Words, read_signed
from safevid_core.settings import Settings
from safevid_core.storage.lake import write_atomically
from safevid_core.storage.media import MediaIndex

SHOWN = ("row_id", "scene", "file", "clip_id", "kind", "said_by", "text")
FILLED = ("true", "complete", "consistent", "reviewer", "date", "note")
VERDICTS = ("yes", "no", "unclear")
_ASKED = {CLAIM: ("true",)}
_OF_A_TEXT = ("complete", "consistent")


@dataclass(frozen=True)
class ReviewerVerdict:
    """A reviewer's verdict on one row.

    Attributes:
        entries: Column (`true`, or `complete` and `consistent`) -> `yes`, `no` or `unclear`.
        date: Date of the review, ISO 8601.
    """

    row_id: str
    entries: Mapping[str, str]
    reviewer: str
    date: str
    note: str = ""

    @property
    def cells(self) -> dict[str, str]:
        """The filled columns as the sheet holds them."""
        return {**self.entries, "reviewer": self.reviewer, "date": self.date, "note": self.note}


@dataclass
class Review:
    """The verdicts in a sample's sheet.

    Attributes:
        verdicts: Row id -> verdict.
        open: Number of rows of the sample without a verdict.
        problems: One line for each row that cannot be used.
    """

    sheet: Path
    verdicts: dict[str, ReviewerVerdict] = field(default_factory=dict)
    open: int = 0
    problems: list[str] = field(default_factory=list)

    def audit_id(self, sample: DescriptionSample) -> str:
        """Id of the sample with its verdicts, which people sign. A changed verdict gives another id."""
        said = [(row_id, sorted(verdict.cells.items())) for row_id, verdict in sorted(self.verdicts.items())]
        return content_id("description audit", sample.name, said)


class AuditSignature(Signature):
    """One person's sign-off for one audit of the descriptions.

    Attributes:
        audit: The id of :meth:`Review.audit_id`.
    """

    audit: Words


def review_folder(settings: Settings) -> Path:
    return settings.descriptions.audit.folder or settings.root / "reviews" / "descriptions"


def sheet_of(settings: Settings, sample: DescriptionSample) -> Path:
    """The path of a sample's sheet. The file exists once :func:`hand_out` has written it."""
    return review_folder(settings) / f"descriptions-{sample.name}.csv"


def read_signatures(settings: Settings) -> list[AuditSignature]:
    """The sign-offs of audits, in the order of the file.

    Raises:
        ReviewError: If the file cannot be read as a list of sign-offs.
    """
    return read_signed(review_folder(settings) / FILE_NAME, AuditSignature)


def hand_out(settings: Settings, sample: DescriptionSample) -> Path:
    """Write the sample's sheet and page. Returns the path of the sheet.

    An existing sheet is left unchanged, because people may have filled it in. A new sheet already holds the
    verdicts that sheets of earlier samples have on the same rows. An existing page is written again only if a
    clip has moved.

    Raises:
        ReviewError: If a sheet in the folder cannot be read.
    """
    folder, sheet = review_folder(settings), sheet_of(settings, sample)
    page, media = sheet.with_suffix(".html"), MediaIndex(settings.root)
    if sheet.exists():
        if _is_outdated(page, sample, media):
            write_atomically(page, review_page(sample, media).encode())
        return sheet
    known: dict[str, ReviewerVerdict] = {}
    for earlier in sorted(folder.glob("descriptions-*.csv")):
        known |= _read(earlier, {row.row_id: row for row in sample.rows}).verdicts
    rows = [_shown(row) | (known[row.row_id].cells if row.row_id in known else {}) for row in sample.rows]
    write_atomically(page, review_page(sample, media).encode())
    write_atomically(sheet, sheets.sheet_bytes([*SHOWN, *FILLED], rows))
    return sheet


def _places(sample: DescriptionSample, media: MediaIndex) -> dict[str, str]:
    """Hash -> the current or last known path of the file."""
    return media.for_export(row.clip.media_sha256 for row in sample.rows if row.clip.media_sha256)


def _is_outdated(page: Path, sample: DescriptionSample, media: MediaIndex) -> bool:
    """Whether the page is missing or lacks the current path of a clip."""
    from markupsafe import escape

    if not page.is_file():
        return True
    text = page.read_text(encoding="utf-8")
    return any(str(escape(place)) not in text for place in _places(sample, media).values())


def _shown(row: SheetRow) -> dict[str, str]:
    return {
        "row_id": row.row_id,
        "scene": row.clip.scene,
        "file": row.clip.file,
        "clip_id": row.clip.clip_id,
        "kind": row.kind,
        "said_by": ", ".join(row.speakers),
        "text": row.text,
    }


def read_review(sheet: Path, sample: DescriptionSample) -> Review:
    """The verdicts on a sample's rows.

    Raises:
        ReviewError: If the file cannot be read, is not CSV, or lacks a column.
    """
    return _read(sheet, {row.row_id: row for row in sample.rows})


def _read(sheet: Path, asked: Mapping[str, SheetRow]) -> Review:
    cells = sheets.read_cells(sheet, "row_id", FILLED)
    review = Review(sheet, problems=list(cells.problems))
    for number, texts in cells.rows:
        row = asked.get(texts["row_id"])
        if row is None:
            problem = "no row of this sample has this id"
        elif not any(texts[name] for name in FILLED):
            continue
        else:
            problem = _problem(row, texts)
        if problem or row is None:
            review.problems.append(sheets.problem_line(number, texts["row_id"], problem))
            continue
        said = {name: texts[name].lower() for name in _asked_of(row)}
        known = {name: texts[name] for name in ("reviewer", "date", "note")}
        review.verdicts[row.row_id] = ReviewerVerdict(row.row_id, said, **known)
    review.open = len(asked) - len(review.verdicts)
    return review


def _asked_of(row: SheetRow) -> Sequence[str]:
    return _ASKED.get(row.kind, _OF_A_TEXT)


def _problem(row: SheetRow, texts: Mapping[str, str]) -> str:
    """Why a row cannot be used. Empty if it can."""
    asked = _asked_of(row)
    for name in ("true", *_OF_A_TEXT):
        said = texts[name].lower()
        if name in asked and said not in VERDICTS:
            return f"{name} is {texts[name][:40]!r}; say {', '.join(VERDICTS)}"
        if name not in asked and said:
            return f"{name} is filled in for a {row.kind}, which is asked {' and '.join(asked)}; empty it"
    if not texts["reviewer"] or not sheets.is_date(texts["date"]):
        return "a verdict without reviewer and date (as 2026-11-24); fill in who and when"
    return sheets.bad_text("reviewer", texts["reviewer"]) or sheets.bad_text("note", texts["note"])


def review_page(sample: DescriptionSample, media: MediaIndex) -> str:
    """One HTML page with the frames of each clip above its rows. It opens offline and has no script."""
    clips: list[dict[str, Any]] = []
    places = _places(sample, media)
    for _, some in groupby(sample.rows, key=lambda row: row.clip.clip_id):
        rows = list(some)
        clip = rows[0].clip
        place = places.get(clip.media_sha256 or "", "")
        clips.append({"clip": clip, "place": place, "film": film_strip(clip, media), "rows": rows})
    template = template_environment(Path(__file__).parent).get_template("description_review.html.j2")
    return template.render(name=sample.name, clips=clips, count=len(sample.rows), filled=FILLED)
