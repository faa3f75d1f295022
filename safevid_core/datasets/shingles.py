"""The three-word sequences of texts, by which near-duplicates are found, in numpy arrays.

Words are compared without case and in Unicode's form NFKC, and contractions are written out ("can't" is "can
not"). No word is dropped. A character of a script without spaces (Chinese, Thai) is a word, and so is a
symbol such as an emoji. A text of fewer than three words is one sequence.

The *critical words* of a text are its negations, each with the three words after it, and its numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

# Words in a sequence.
SHINGLE = 3
NEGATIONS = (
    "not", "no", "never", "none", "minus", "nobody", "nothing", "nowhere", "neither", "nor", "without",
    "hardly", "scarcely", "barely", "rarely", "seldom", "dont", "doesnt", "didnt", "isnt", "arent", "wasnt",
    "werent", "wont", "wouldnt", "cant", "couldnt", "shouldnt", "mustnt", "havent", "hasnt", "hadnt", "aint",
)  # fmt: skip

# The last one is the form NFKC of the acute accent that some keyboards give for an apostrophe.
_APOSTROPHES = ("'", "’", "‘", "ʼ", "`", " \u0301")
_CONTRACTIONS = {
    **{f"{word}n{mark}t": f"{full} not" for mark in _APOSTROPHES for word, full in (
        ("wo", "will"), ("ca", "can"), ("sha", "shall"), ("ai", "is"), ("", "")
    )},
    "cannot": "can not",
    **{f" {sign}{digit}": f" minus {digit}" for sign in "-−" for digit in range(10)},
}  # fmt: skip
_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_NUMBER = r"\p{N}+(?:[.,:]\p{N}+)+"
_WORD = rf"{_NUMBER}|[\p{{L}}\p{{M}}\p{{N}}&&[^{_NO_SPACES}]]+|[{_NO_SPACES}\p{{So}}\p{{Sc}}\p{{Sm}}%]"
# Odd constants of 64 bits with well-spread bits, from SplitMix64 and xxHash64.
_MIX = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9],
    dtype=np.uint64,
)
_BLOCK = 8  # bytes of a word that are hashed at a time
_LONG = 64  # bytes from which a word is hashed by hashlib
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_BLOCK + 1)], dtype=np.uint64)


@dataclass(frozen=True)
class Shingles:
    """The sequences of some texts.

    Attributes:
        hashes: Hashes of the sequences of all texts, one after another, uint64.
        starts: Where each text's begin, and the end of the last, int64 `[N + 1]`. No text is without one.
        identity, critical: Hashes of the sequence of words and of the critical words, uint64 `[N]`.
        words: Number of words, int64 `[N]`.
    """

    hashes: np.ndarray
    starts: np.ndarray
    identity: np.ndarray
    critical: np.ndarray
    words: np.ndarray


def split_words(texts: pl.Series) -> pl.Series:
    """The words of each text, a list of strings: without case, contractions written out.

    A text without a word, such as "?!", counts as one word.
    """
    plain = " " + texts.str.to_lowercase()
    other = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    if len(other):
        plain = plain.scatter(other, " " + _without_case(texts.gather(other)))
    plain = plain.str.replace_many(list(_CONTRACTIONS), list(_CONTRACTIONS.values()), leftmost=True)
    words = plain.str.extract_all(_WORD)
    bare = (words.list.len() == 0).arg_true()
    if len(bare):
        lone = plain.gather(bare).str.strip_chars().to_frame("text").select(pl.concat_list("text"))["text"]
        words = (
            words.to_frame("words")
            .with_row_index()
            .join(pl.DataFrame({"index": bare, "lone": lone}), on="index", how="left", maintain_order="left")
            .select(pl.coalesce("lone", "words"))["lone"]
        )
    return words


def _without_case(texts: pl.Series) -> pl.Series:
    """Texts in form NFKC and without case. Upper case first: "ß" and "SS" have one form only there."""
    form = texts.str.normalize("NFKC")
    return form.str.to_uppercase().str.to_lowercase().str.normalize("NFKC")


def shingles_of(texts: pl.Series) -> Shingles:
    """The sequences of some texts. At least one text, and no null."""
    lists = split_words(texts)
    counts = lists.list.len().to_numpy().astype(np.int64)
    ends = np.cumsum(counts)
    starts = ends - counts
    words, digits = _hashed(lists.explode())
    left = np.repeat(ends, counts) - np.arange(len(words))  # words up to the text's end, this one included
    second, third, fourth = (
        np.where(left > after, np.roll(words, -after), np.uint64(0)) for after in (1, 2, 3)
    )
    sequences = mixed(words * _MIX[0] + second * _MIX[1] + third * _MIX[2])
    negative = np.isin(words, _hashed(pl.Series(NEGATIONS))[0])
    critical = np.where(digits, mixed(words), np.uint64(0))
    critical[negative] = mixed(sequences[negative] + fourth[negative] * _MIX[3])
    ordered = mixed(words + _MIX[3] * left.astype(np.uint64))
    whole = (left >= SHINGLE) | (np.arange(len(words)) == np.repeat(starts, counts))
    kept = np.maximum(counts - SHINGLE + 1, 1)
    return Shingles(
        sequences[whole],
        np.concatenate([[0], np.cumsum(kept)]),
        mixed(np.add.reduceat(ordered, starts)),
        np.add.reduceat(critical, starts),
        counts,
    )


def _hashed(words: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The hash of each word, uint64, and whether it begins with a digit. The same on every machine."""
    array = words.rechunk().to_arrow()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    lengths, starts = np.diff(ends), ends[:-1]
    text = np.zeros(int(ends[-1]) + _BLOCK, dtype=np.uint8)
    text[: ends[-1]] = np.frombuffer(data, dtype=np.uint8)[: ends[-1]] if ends[-1] else 0
    blocks = np.ndarray((len(text) - _BLOCK + 1,), dtype="<u8", buffer=text, strides=(1,))
    hashes = mixed(blocks[starts] & _MASKS[np.minimum(lengths, _BLOCK)])
    for done in range(_BLOCK, _LONG, _BLOCK):
        longer = np.flatnonzero(lengths > done)
        block = blocks[starts[longer] + done] & _MASKS[np.minimum(lengths[longer] - done, _BLOCK)]
        hashes[longer] = mixed(hashes[longer] * _MIX[4] + block)
    for place in np.flatnonzero(lengths > _LONG):
        digest = hashlib.blake2b(text[starts[place] : ends[place + 1]].tobytes(), digest_size=8).digest()
        hashes[place] = int.from_bytes(digest, "little")
    first = text[starts]
    return hashes, (first >= ord("0")) & (first <= ord("9"))


def mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection whose every bit depends on every bit of the value."""
    bits = values + _MIX[0]
    bits ^= bits >> np.uint64(30)
    bits *= _MIX[1]
    bits ^= bits >> np.uint64(27)
    bits *= _MIX[2]
    bits ^= bits >> np.uint64(31)
    return bits
