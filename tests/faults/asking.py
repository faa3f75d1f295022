"""A process that asks a loopback server some questions through the gateway, for tests that start several."""

from __future__ import annotations

import sys

from safevid_core.models.llm import ChatRequest, Gateway
from safevid_core.settings import TextModel, load_settings


def main(root: str, ledger_url: str, server_url: str, count: str, lease_s: str, concurrency: str) -> None:
    models = {
        "providers": [],
        "ledger_url": ledger_url,
        "lease_s": float(lease_s),
        "concurrency": int(concurrency),
    }
    gateway = Gateway(load_settings("pocket", overrides={"root": root, "models": models}))
    model = TextModel(model="openai/loopback", api_base=server_url)
    asked = [ChatRequest(model, [{"role": "user", "content": f"q{place}"}]) for place in range(int(count))]
    answers = gateway.ask_many(asked, asset="x")
    assert [answer.text for answer in answers] == [f"echo: q{place}" for place in range(int(count))]


if __name__ == "__main__":
    main(*sys.argv[1:])
