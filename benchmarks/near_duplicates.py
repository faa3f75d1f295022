"""Near-duplicates among 350,000 queries, from texts to flags: datasketch, rensa and text-dedup are the peers.

The queries are made from the sentences of the taxonomy, of the judges' cases and of the pocket world: clauses
of several sentences are put together, and one word in ten is replaced by another one of the vocabulary. One
query in six is a copy of another one with up to two edits, or with other case and punctuation. Every tool
flags the rows that have a near-duplicate, at a Jaccard similarity of 0.8 of three-word sequences, with the
same number of bands and of minimums. The peers get the sequences from the cheapest split in Python.

Recall is the share of planted pairs of that similarity, with the same negations and numbers, whose later row
is flagged. Precision is the share of 2,000 flagged rows for which a comparison with every row that shares a
sequence finds one at that similarity. A peer whose recall is more than 0.005 under ours is shown and does not
count. The goals: 5 times the best peer in Python, and at most 1.5 times the seconds of the best in Rust.
A peer that is not installed is left out with its reason. `--peers FOLDER` names a folder with the peers'
packages, as ``pip install --target FOLDER datasketch rensa text-dedup`` makes it.

Run with ``python -m benchmarks.near_duplicates [--rows N] [--rounds N] [--peers FOLDER]``.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from benchmarks.inputs.texts import JOINERS, OPENERS, sentences
from benchmarks.lake_io import PeakMemory
from safevid_core.datasets.near_duplicates import bands_for, near_duplicate_groups
from safevid_core.datasets.shingles import NEGATIONS, SHINGLE

ROWS, ROUNDS, THRESHOLD = 350_000, 3, 0.8
GOAL_PYTHON, GOAL_RUST, LEEWAY = 5.0, 1.5, 0.005
SAMPLED = 2_000
BANDS = bands_for(THRESHOLD)
MINIMUMS = BANDS.count * BANDS.rows
# Texts -> whether each has a near-duplicate. A tool that keeps the first row of a group flags the others.
Flags = Callable[[Sequence[str]], np.ndarray]
_CRITICAL = re.compile(rf"^(t|cannot|{'|'.join(NEGATIONS)})$|\d")  # "t" as in "don't"


@dataclass(frozen=True)
class Queries:
    """Texts, and the planted pairs of rows whose true similarity is at least the threshold."""

    texts: list[str]
    planted: list[tuple[int, int]]


def make_queries(rows: int, seed: int = 0) -> Queries:
    """Queries of 8 to 40 words, one in six of them a copy of an earlier row with up to two edits."""
    rng = np.random.default_rng(seed)
    pool = sentences()
    vocabulary = sorted({word for words in pool for word in words})
    texts: list[list[str]] = []
    copies: list[tuple[int, int]] = []
    for row in range(rows):
        if row > 10 and rng.random() < 1 / 6:
            source = int(rng.integers(row))
            texts.append(edited(texts[source], vocabulary, rng))
            copies.append((source, row))
        else:
            texts.append(_composed(pool, vocabulary, rng))
    planted = [pair for pair in copies if is_near_duplicate(*(texts[row] for row in pair))]
    order = rng.permutation(rows)
    place = np.argsort(order)
    written = [_written(texts[row], rng) for row in order]
    return Queries(written, [(int(place[one]), int(place[other])) for one, other in planted])


def _composed(
    pool: Sequence[Sequence[str]], vocabulary: Sequence[str], rng: np.random.Generator
) -> list[str]:
    words = OPENERS[rng.integers(len(OPENERS))].split()
    for clause in range(int(rng.integers(1, 4))):
        if clause:
            words += JOINERS[rng.integers(len(JOINERS))].split()
        sentence = pool[rng.integers(len(pool))]
        length = int(rng.integers(3, 11))
        start = int(rng.integers(max(1, len(sentence) - length + 1)))
        words += sentence[start : start + length]
    for place in np.flatnonzero(rng.random(len(words)) < 0.1):
        words[place] = vocabulary[rng.integers(len(vocabulary))]
    return words


def edited(words: Sequence[str], vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    edited = list(words)
    for _ in range(int(rng.integers(3))):
        # Half of the edits are at the beginning or the end: "please", "today".
        place = (
            int(rng.integers(len(edited) + 1)) if rng.random() < 0.5 else int(rng.integers(2)) * len(edited)
        )
        word = vocabulary[rng.integers(len(vocabulary))]
        kind = rng.integers(3)
        if kind == 0:
            edited.insert(place, word)
        elif kind == 1:
            edited[place : place + 1] = []
        else:
            edited[place : place + 1] = [word]
    return edited or list(words)


def is_near_duplicate(*texts: Sequence[str]) -> bool:
    """Whether two queries are near-duplicates: alike, and with the same negations and numbers."""
    one, other = (words_of(" ".join(words)) for words in texts)
    return _critical(one) == _critical(other) and similarity(shingles(one), shingles(other)) >= THRESHOLD


def _critical(words: Sequence[str]) -> list[Sequence[str]]:
    return [words[place : place + 4] for place, word in enumerate(words) if _CRITICAL.search(word)]


def _written(words: Sequence[str], rng: np.random.Generator) -> str:
    text = " ".join(words)
    if rng.random() < 0.8:
        text = text[0].upper() + text[1:] + "?"
    return text


def shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[place : place + SHINGLE]) for place in range(max(1, len(words) - SHINGLE + 1))}


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def similarity(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / len(one | other)


def sequences(texts: Sequence[str]) -> list[list[str]]:
    """What the peers are given: the cheapest split in Python that leaves out the end of a sentence."""
    found = []
    for text in texts:
        words = text.lower().rstrip("?").split()
        found.append([" ".join(words[place : place + SHINGLE]) for place in range(max(1, len(words) - 2))])
    return found


def ours(texts: Sequence[str]) -> np.ndarray:
    groups = near_duplicate_groups(pl.Series(texts), THRESHOLD)
    return np.bincount(groups)[groups] > 1


def datasketch(texts: Sequence[str]) -> np.ndarray:
    """Its fastest path: MinHash in bulk with a fast hash, then the candidates of each text."""
    tool, hashing = importlib.import_module("datasketch"), importlib.import_module("xxhash")
    index = tool.MinHashLSH(num_perm=MINIMUMS, params=(BANDS.count, BANDS.rows))
    encoded = ([each.encode() for each in some] for some in sequences(texts))
    sketches = tool.MinHash.bulk(encoded, num_perm=MINIMUMS, hashfunc=hashing.xxh32_intdigest)
    with index.insertion_session() as session:
        for row, sketch in enumerate(sketches):
            session.insert(row, sketch, check_duplication=False)
    return np.array([len(index.query(sketch)) > 1 for sketch in sketches])


def text_dedup(texts: Sequence[str]) -> np.ndarray:
    """Its signatures, tables and union-find in one process, without the files that its command writes."""
    tool, utils = importlib.import_module("text_dedup.minhash"), importlib.import_module("text_dedup.utils")
    rng, prime = np.random.RandomState(42), np.uint32((1 << 32) - 5)
    settings = {
        "num_perm": MINIMUMS, "ngram_size": SHINGLE, "min_length": 1, "hash_func": tool.xxh3_32hash,
        "hashranges": [(band * BANDS.rows, (band + 1) * BANDS.rows) for band in range(BANDS.count)],
        "permutations": tuple(rng.randint(low, prime, MINIMUMS, np.uint32) for low in (1, 0)),
        "dtype": np.uint32, "max_hash": np.uint32((1 << 32) - 1), "modulo_prime": prime,
    }  # fmt: skip
    tables: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS.count)]
    for row, text in enumerate(texts):
        signature = tool.embed_func(text, row, **settings)[tool.SIGNATURE_COLUMN]
        for table, key in zip(tables, signature, strict=True):
            table.setdefault(key, []).append(row)
    groups, flags = utils.UnionFind(), np.zeros(len(texts), dtype=bool)
    for table in tables:
        for cluster in table.values():
            for row in cluster[1:]:
                groups.union(row, cluster[0])
                flags[[row, cluster[0]]] = True
    return flags


def rensa(texts: Sequence[str]) -> np.ndarray:
    """Its batch path: a matrix of R-MinHash digests, and the flags of one pass over the bands."""
    tool = importlib.import_module("rensa")
    digests = tool.RMinHash.digest_matrix_from_token_sets(sequences(texts), MINIMUMS, 42)
    index = tool.RMinHashLSH(THRESHOLD, MINIMUMS, BANDS.count)
    return np.array(index.query_duplicate_flags_matrix_one_shot(digests))


def rensa_rho(texts: Sequence[str]) -> np.ndarray:
    """Its rho path, which samples the positions of the sequences."""
    tool = importlib.import_module("rensa")
    digests = tool.RMinHash.digest_matrix_from_token_sets_rho(sequences(texts), MINIMUMS, 42)
    index = tool.RMinHashLSH(THRESHOLD, MINIMUMS, BANDS.count)
    return np.array(index.query_duplicate_flags_matrix_one_shot(digests))


def rensa_compared(texts: Sequence[str]) -> np.ndarray:
    """Its deduplicator, which compares the digests of candidates, as ours compares the texts.

    128 minimums in 32 bands. Its threshold is 0.65: the estimate of half of the pairs at 0.8 is under 0.8.
    """
    tool = importlib.import_module("rensa")
    deduplicator = tool.RMinHashDeduplicator(0.65, 128, True, 32)
    return ~np.array(deduplicator.add_pairs(zip(map(str, range(len(texts))), sequences(texts), strict=True)))


# Peer -> its function, its package, the language that it is written in.
PEERS: dict[str, tuple[Flags, str, str]] = {
    "datasketch": (datasketch, "datasketch", "Python"),
    "text-dedup": (text_dedup, "text_dedup.minhash", "Python"),
    "rensa": (rensa, "rensa", "Rust"),
    "rensa, rho": (rensa_rho, "rensa", "Rust"),
    "rensa, compared": (rensa_compared, "rensa", "Rust"),
}


def installed() -> dict[str, tuple[Flags, str, str]]:
    """The peers that can be imported; says of the others why not."""
    found = {}
    for name, (flags, package, language) in PEERS.items():
        try:
            importlib.import_module(package)
        except ImportError as error:
            say(f"{name}: left out, {error}; give a folder that has it with --peers")
        else:
            found[name] = (flags, package, language)
    return found


def recall(flags: np.ndarray, queries: Queries) -> float:
    return float(np.mean([flags[max(pair)] for pair in queries.planted]))


def precision(flags: np.ndarray, queries: Queries, seed: int = 0) -> float:
    """The share of a sample of flagged rows that have another row at the threshold."""
    rows = np.flatnonzero(flags)
    sample = np.random.default_rng(seed).choice(rows, min(SAMPLED, len(rows)), replace=False).tolist()
    sets = {row: shingles(words_of(queries.texts[row])) for row in sample}
    wanted: dict[Any, set[int]] = {sequence: set() for some in sets.values() for sequence in some}
    for row, text in enumerate(queries.texts):
        for sequence in wanted.keys() & shingles(words_of(text)):
            wanted[sequence].add(row)
    return float(np.mean([_has_another(row, sets[row], wanted, queries.texts) for row in sample]))


def _has_another(row: int, mine: set[Any], rows: dict[Any, set[int]], texts: Sequence[str]) -> bool:
    # A text at the threshold shares at least this many of the row's sequences, so it is among the rows of
    # any of the others; the rarest are looked up.
    needed = int(np.ceil(THRESHOLD * len(mine)))
    rarest = sorted(mine, key=lambda sequence: len(rows[sequence]))[: len(mine) - needed + 1]
    others = set().union(*(rows[sequence] for sequence in rarest)) - {row}
    return any(similarity(mine, shingles(words_of(texts[other]))) >= THRESHOLD for other in others)


def timed(flags: Flags, texts: Sequence[str]) -> tuple[float, float, np.ndarray]:
    """Seconds, MB over those at the start, and the flags."""
    gc.collect()
    with PeakMemory() as memory:
        started = time.perf_counter()
        found = flags(texts)
        seconds = time.perf_counter() - started
    return seconds, memory.mb, found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(queries: Queries, tools: dict[str, Flags], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds, the largest memory, recall and precision of each tool; all tools take turns."""
    runs: dict[str, list[tuple[float, float, np.ndarray]]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, flags in tools.items():
            runs[name].append(timed(flags, queries.texts))
    figures = {}
    for name, some in runs.items():
        flags = some[-1][2]
        figures[name] = {
            "seconds": median(seconds for seconds, _, _ in some),
            "mb": max(mb for _, mb, _ in some),
            "recall": recall(flags, queries),
            "precision": precision(flags, queries),
            "flagged": int(flags.sum()),
        }
        say(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures[name].items()))
    return figures


def case(name: str, ours: float, peers: dict[str, float], goal: float) -> dict[str, Any]:
    """One case; `ratio` is the seconds or MB of the best peer by ours, to be at least `goal`."""
    rounded = {peer: round(value, 3) for peer, value in peers.items()}
    ratio = round(min(peers.values()) / ours, 3) if peers else None
    return {"case": name, "ours": round(ours, 3), "peers": rounded, "ratio": ratio, "goal": goal}


def main() -> None:
    parser = argparse.ArgumentParser(description="Near-duplicates among queries, against other tools.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers", action="append", default=[], help="a folder with the peers' packages")
    chosen = parser.parse_args()
    sys.path += chosen.peers
    queries = make_queries(chosen.rows)
    peers = installed()
    say(f"{chosen.rows:,} queries of {np.mean([len(text.split()) for text in queries.texts]):.1f} words, "
        f"{len(queries.planted):,} planted pairs")  # fmt: skip
    ours(queries.texts[:1000])
    figures = measure(
        queries, {"ours": ours, **{name: peer[0] for name, peer in peers.items()}}, chosen.rounds
    )
    mine = figures.pop("ours")
    cases = []
    for language, goal in (("Python", GOAL_PYTHON), ("Rust", 1 / GOAL_RUST)):
        counted = {
            name: figures[name]["seconds"]
            for name in figures
            if peers[name][2] == language and figures[name]["recall"] >= mine["recall"] - LEEWAY
        }
        cases.append(case(f"seconds, peers in {language}", mine["seconds"], counted, round(goal, 3)))
    for part in (8, 4, 2):
        seconds, mb, _ = timed(ours, queries.texts[: chosen.rows // part])
        cases.append(case(f"seconds, {chosen.rows // part:,} queries", seconds, {}, 0))
        cases.append(case(f"MB, {chosen.rows // part:,} queries", mb, {}, 0))
    cases.append(case("MB", mine["mb"], {name: each["mb"] for name, each in figures.items()}, 0))
    met = [each["ratio"] / each["goal"] for each in cases if each["goal"] and each["ratio"]]
    result = {
        "name": "near_duplicates",
        "unit": "as named in each case",
        "n": chosen.rows,
        "cases": cases,
        "tools": {"ours": mine, **figures},
        "ratio": round(min(met), 3) if met else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
