"""The picture of docs/alignment.md: three pairs of one video as a tree, and who sees whom in it.

Run with ``python -m docs.tree_picture``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from safevid_core.alignment.encoding import EncodedPair
from safevid_core.alignment.tree import Forest, plant

OUT = Path(__file__).resolve().parent / "pictures" / "dpo_tree.svg"
VIDEO, QUERIES, CHOSEN, REJECTED = 10, (3, 4, 3), (4, 3, 4), (3, 4, 4)
COLOURS = {"video": "#5b7db1", "query": "#9a9a9a", "chosen": "#4a9a62", "rejected": "#c2554d"}


def pairs() -> list[EncodedPair]:
    return [
        EncodedPair(
            str(number),
            "clip",
            [*[1] * VIDEO, *(10 * (number + 1) + each for each in range(query))],
            None,
            [2] * (chosen + 1),  # the last token of an answer is not in the tree
            [3] * (rejected + 1),
            VIDEO,
        )
        for number, (query, chosen, rejected) in enumerate(zip(QUERIES, CHOSEN, REJECTED, strict=True))
    ]


def kinds(forest: Forest) -> list[str]:
    """What each token belongs to."""
    names = {1: "video", 2: "chosen", 3: "rejected"}
    return [names.get(token, "query") for token in forest.token_ids]


def main() -> None:
    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.colors import to_rgb

    matplotlib.rcParams["svg.hashsalt"] = "tree"
    forest = plant([pairs()])
    of = kinds(forest)
    count = len(of)
    stops = np.array(forest.stops())
    token = np.arange(count)
    seen = (token[None] <= token[:, None]) & (token[:, None] < stops[None])

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    lines = 0
    for segment in forest.segments:
        name = of[segment.start]
        height = {"video": 3.0, "query": 3.0}.get(name, 3.5 if name == "chosen" else 2.5)
        branch = 0 if name == "video" else lines // 3
        y = 3.0 if name == "video" else 6.0 - 3 * branch + (height - 3.0)
        for place in range(segment.start, segment.end):
            x = segment.depth + place - segment.start
            left.add_patch(pyplot.Rectangle((x, y), 0.9, 0.7, color=COLOURS[name]))
        if name != "video":
            lines += 1
    left.set(
        xlim=(-0.5, 19),
        ylim=(-1, 8),
        yticks=[],
        xticks=range(0, 19, 5),
        xlabel="position: it restarts at each branch",
    )
    left.set_title("the video stands once, each query once", fontsize=10)
    left.spines[["left", "right", "top"]].set_visible(False)

    picture = np.ones((count, count, 3))
    for column in range(count):
        picture[seen[:, column], column] = to_rgb(COLOURS[of[column]])
    right.imshow(picture, interpolation="none")
    for segment in forest.segments[1:]:
        right.axhline(segment.start - 0.5, color="#dddddd", linewidth=0.5)
        right.axvline(segment.start - 0.5, color="#dddddd", linewidth=0.5)
    right.set(xlabel="is seen", ylabel="sees", xticks=[], yticks=[])
    right.set_title("a token sees its ancestors only", fontsize=10)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, list(COLOURS), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(OUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
