"""A real HTTP server on loopback that speaks OpenAI's batch API: files in, batches polled, files out."""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.models.chat_server import LoopbackServer, send


class BatchServer:
    """Answers every line with `echo: <last user text>` once `open` is set.

    Attributes:
        paid: Last user text -> how many lines of accepted batches asked it.
        errors: Last user text -> status and message that its line gets instead of an answer.
        changes: Last user text -> what makes of its line what is sent.
        refused: Last user texts whose batches are answered with 400, and not taken.
        gone: Names of batches and files that are known no longer, and the status that says so.
        listless: Whether a list of batches is answered with 500.
        end: Status in which batches end.
        open: Whether batches that were taken are worked off.
        lose_answers: So many batches are taken, but the answer to their submission is lost.
    """

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.errors: dict[str, tuple[int, str]] = {}
        self.changes: dict[str, Callable[[bytes], bytes]] = {}
        self.refused: set[str] = set()
        self.gone: dict[str, int] = {}
        self.listless = False
        self.end = "completed"
        self.open = threading.Event()
        self.lose_answers = 0
        self.polls = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.authorizations: set[str] = set()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = LoopbackServer(handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_file(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name, "object": "file", "bytes": len(content), "created_at": 1, "filename": "lines.jsonl",
            "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def take_batch(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        lines = self.files[asked["input_file_id"]].splitlines()
        texts = [_last_text(json.loads(line)["body"]) for line in lines]
        if self.refused.intersection(texts):
            return None
        self.paid.update(texts)
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": asked["endpoint"], "created_at": 1,
            "input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"],
            "status": "in_progress", "metadata": asked.get("metadata"), "output_file_id": None,
            "error_file_id": None, "errors": None,
        }  # fmt: skip
        return self.batches[name]

    def look(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        self.polls += 1
        if self.open.is_set() and batch["status"] == "in_progress":
            lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            if self.end == "expired":
                lines = lines[: len(lines) // 2]
            good, bad = [], []
            for line in lines:
                (bad if _last_text(line["body"]) in self.errors else good).append(self._answered(line))
            batch["output_file_id"] = self.take_file(b"\n".join(good))["id"] if good else None
            batch["error_file_id"] = self.take_file(b"\n".join(bad))["id"] if bad else None
            batch["status"] = self.end
        return batch

    def _answered(self, line: dict[str, Any]) -> bytes:
        asked, body = _last_text(line["body"]), line["body"]
        status, message = self.errors.get(asked, (200, ""))
        said: dict[str, Any] = {"error": {"message": message, "code": message}}
        if status == 200:
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"echo: {asked}", "refusal": None},
            }
            usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
            said = {
                "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [choice], "usage": usage,
            }  # fmt: skip
        response = {"status_code": status, "request_id": "r", "body": said}
        whole = {"id": "l", "custom_id": line["custom_id"], "response": response, "error": None}
        return self.changes.get(asked, bytes)(json.dumps(whole).encode())


class _Handler(BaseHTTPRequestHandler):
    server_state: BatchServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        state, body = self.server_state, self.rfile.read(int(self.headers["Content-Length"]))
        state.authorizations.add(self.headers["Authorization"])
        with state.lock:
            if self.path == "/v1/files":
                return self._send(200, state.take_file(_uploaded(self.headers["Content-Type"], body)))
            batch = state.take_batch(json.loads(body))
            if batch is None:
                return self._send(400, {"error": {"message": "no such model here"}})
            if state.lose_answers > 0:
                state.lose_answers -= 1
                self.close_connection = True
                return None
        return self._send(200, batch)

    def do_GET(self) -> None:
        state, path = self.server_state, self.path.split("?")[0].removeprefix("/v1/")
        with state.lock:
            if path == "batches" and state.listless:
                return self._send(500, {"error": {"message": "trouble"}})
            if path == "batches":
                listed = list(state.batches.values())[::-1]
                return self._send(200, {"object": "list", "data": listed, "has_more": False})
            kind, _, name = path.removesuffix("/content").partition("/")
            if name in state.gone or name not in {"batches": state.batches, "files": state.files}.get(
                kind, ()
            ):
                message = f"No batch found with id '{name}'"
                return self._send(state.gone.get(name, 404), {"error": {"message": message}})
            if kind == "batches":
                return self._send(200, state.look(name))
            return self._send_bytes(200, state.files[name])

    def _send(self, status: int, value: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(value).encode())

    def _send_bytes(self, status: int, body: bytes) -> None:
        send(self, status, body)

    def log_message(self, *args: Any) -> None:
        pass


def _last_text(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def _uploaded(content_type: str, body: bytes) -> bytes:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    return next(part.get_payload(decode=True) for part in message.iter_parts() if part.get_filename())
