"""Making 350,000 answered rows again: every request keyed, every answer read from the ledger and parsed.

The peer is what one would write by hand: a file of JSON lines, read into a dictionary by request key and
parsed with the same schema. Goals: 20,000 rows a second and 2 GB. Run with
``python -m benchmarks.ledger_replay``.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel

from benchmarks import print_result
from safevid_core.models.ledger import Call
from safevid_core.models.llm import ChatRequest, Gateway, ask_structured, request_key
from safevid_core.models.teacher import teacher_request
from safevid_core.settings import TextModel, load_settings

ROWS, SCENES = 350_000, 30
GOAL_ROWS_S, GOAL_MB = 20_000, 2_000
MODEL = TextModel(model="openai/teacher")
TASK = "You answer a query about a video from its description alone. " * 12
WORDS = "A person in a kitchen lifts a pan from the stove while steam rises and a cat looks on. " * 4


class Answer(BaseModel):
    response: str


def request(place: int) -> ChatRequest:
    return teacher_request(MODEL, TASK, {"description": WORDS, "query": f"What happens in clip {place}?"})


def answer(place: int) -> str:
    return json.dumps({"response": f"In clip {place}: {WORDS}"})


def fill(gateway: Gateway, peer: Path, rows: int) -> None:
    """Store the answers, as a run would have left them, here and in the peer's file."""
    with peer.open("w") as file:
        for start in range(0, rows, 5_000):
            places = range(start, min(start + 5_000, rows))
            keys = [request_key(request(place)) for place in places]
            stored = Call("", MODEL.model, "1", "pairs", "ok", tokens_in=300, tokens_out=90, attempts=1)
            calls = [
                stored._replace(request_key=key, text=answer(place))
                for key, place in zip(keys, places, strict=True)
            ]
            gateway.ledger.store(calls, "filled")
            for key, place in zip(keys, places, strict=True):
                file.write(json.dumps({"key": key, "text": answer(place)}) + "\n")


def ours(gateway: Gateway, rows: int) -> int:
    """Scene by scene, as the stages ask."""
    read = 0
    for scene in range(SCENES):
        requests = [request(place) for place in range(scene, rows, SCENES)]
        for value, replayed in ask_structured(gateway, requests, Answer, asset="pairs"):
            assert replayed.cached
            read += value is not None
    return read


def by_hand(peer: Path, rows: int) -> int:
    with peer.open() as file:
        texts = {line["key"]: line["text"] for line in map(json.loads, file)}
    return sum(
        bool(Answer.model_validate_json(texts[request_key(request(place))]).response) for place in range(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as root:
        settings = load_settings("pocket", overrides={"root": root, "models": {"providers": []}})
        gateway, peer = Gateway(settings), Path(root) / "answers.jsonl"
        fill(gateway, peer, rows)
        started = time.perf_counter()
        assert ours(gateway, rows) == rows
        seconds = time.perf_counter() - started
        most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        started = time.perf_counter()
        assert by_hand(peer, rows) == rows
        peer_s = time.perf_counter() - started
    rate, peer_rate = rows / seconds, rows / peer_s
    cases = [
        {
            "case": "rows/s, keyed, read and parsed",
            "ours": round(rate),
            "peers": {"JSON lines in a dictionary": round(peer_rate), "goal": GOAL_ROWS_S},
            "ratio": round(rate / GOAL_ROWS_S, 2),
        },
        {
            "case": "most memory, MB",
            "ours": round(most_mb),
            "peers": {"goal": GOAL_MB},
            "ratio": round(GOAL_MB / most_mb, 2),
        },
    ]
    print_result("ledger_replay", "rows/s", rows, cases, round(rate / GOAL_ROWS_S, 2))


if __name__ == "__main__":
    main()
