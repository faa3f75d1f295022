"""A real HTTP server on loopback that speaks OpenAI's chat completions and can be told to misbehave."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """Says nothing of callers that were killed in the middle of a call."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


Reply = Callable[["ChatServer", dict[str, Any], BaseHTTPRequestHandler], None]


class ChatServer:
    """Answers every call with `echo: <last user text>` unless a reply was queued or set.

    Attributes:
        reply: What a call gets when no reply is queued.
        paid: Last user text -> how many 200 answers went out for it.
        seen: Request bodies, in order of arrival.
        headers: Request headers by lower-case name, in order of arrival.
    """

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at: list[float] = []
        self.queued: list[Reply] = []
        self.reply: Reply = says(None)
        self.delay_s = 0.0
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"chat": self})
        self._server = LoopbackServer(handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def queue(self, *replies: Reply) -> None:
        """What the next calls get, one each."""
        self.queued.extend(replies)

    def wait_until_paid(self, count: int) -> None:
        """Wait until so many 200 answers went out, a minute at most."""
        deadline = time.monotonic() + 60
        while sum(self.paid.values()) < count:
            assert time.monotonic() < deadline, "nothing is asked"
            time.sleep(0.001)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.chat
        with chat.lock:
            chat.seen.append(body)
            chat.headers.append({name.lower(): value for name, value in self.headers.items()})
            chat.at.append(time.monotonic())
            chat.in_flight += 1
            chat.most_in_flight = max(chat.most_in_flight, chat.in_flight)
            reply = chat.queued.pop(0) if chat.queued else chat.reply
        try:
            time.sleep(chat.delay_s)
            reply(chat, body, self)
        finally:
            with chat.lock:
                chat.in_flight -= 1

    def log_message(self, *args: Any) -> None:
        pass


def last_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def says(
    text: str | None,
    finish_reason: str = "stop",
    refusal: str | None = None,
    echo_key: bool = False,
    headers: dict[str, str] | None = None,
) -> Reply:
    """A 200 with this text; None echoes what was asked."""

    def reply(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        asked = last_text(body)
        said = f"echo: {asked}" if text is None else text
        if echo_key:
            said += " " + handler.headers["Authorization"]
        with chat.lock:
            chat.paid[asked] += 1
        message = {"role": "assistant", "content": said, "refusal": refusal}
        choices = [{"index": 0, "finish_reason": finish_reason, "message": message}]
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        send(handler, 200, json.dumps({**answer, "choices": choices, "usage": usage}).encode(), headers)

    return reply


def fails(
    status: int, message: str = "no", echo_key: bool = False, code: str | None = None, **headers: str
) -> Reply:
    """An error of this status; keyword `retry_after` becomes the header `Retry-After`."""

    def reply(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        said = message + (f" {handler.headers['Authorization']}" if echo_key else "")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        error = {"message": said, "type": "error", "code": code}
        send(handler, status, json.dumps({"error": error}).encode(), sent)

    return reply


def bodies(text: str) -> Reply:
    """A 200 with this body, whatever it is."""

    def reply(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, text.encode())

    return reply


def cuts() -> Reply:
    """Half a body, then the connection is gone."""

    def reply(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        begin(handler, 200, 500)
        handler.wfile.write(b'{"choices": [')
        handler.wfile.flush()
        handler.close_connection = True

    return reply


def drips() -> Reply:
    """An answer that never ends: a byte now and then."""

    def reply(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        begin(handler, 200, 100_000)
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass
        handler.close_connection = True

    return reply


def send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    """A whole answer of JSON."""
    begin(handler, status, len(body), headers)
    handler.wfile.write(body)


def begin(
    handler: BaseHTTPRequestHandler, status: int, length: int, headers: dict[str, str] | None = None
) -> None:
    """The head of an answer that says it has so many bytes."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(length))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
