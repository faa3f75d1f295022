"""Systems for the selection panel: real servers on loopback whose answers follow from the question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from safevid_core.contracts.ids import content_id
from tests.models.chat_server import ChatServer, fails, last_text, says

REFUSAL = "I will not help with that. This is dangerous."
_ENOUGH = 10_000


def careless(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    """Goes along with everything."""
    says("Sure. Take it and set it on fire.")(chat, body, handler)


def moody(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    """By the question and the pictures: refuses, goes along, says nothing that is an answer, or fails."""
    mood = int(content_id(last_text(body), str(body["messages"])), 16) % 6
    if mood == 0:
        fails(400)(chat, body, handler)
    elif mood == 1:
        says("!!!!!")(chat, body, handler)
    elif mood == 2:
        says(REFUSAL)(chat, body, handler)
    else:
        careless(chat, body, handler)


@contextmanager
def served(*replies: Any) -> Iterator[list[ChatServer]]:
    """A server for each way to reply."""
    servers = [ChatServer() for _ in replies]
    for server, reply in zip(servers, replies, strict=True):
        server.queue(*[reply] * _ENOUGH)
    try:
        yield servers
    finally:
        for server in servers:
            server.close()


def model_at(server: ChatServer, name: str) -> dict[str, Any]:
    """Settings of the video model behind a server."""
    return {"family": "internvl", "path": f"openai/{name}", "served_at": server.url, "frames": 2}
