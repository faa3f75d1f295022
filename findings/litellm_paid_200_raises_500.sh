#!/usr/bin/env bash
# litellm 1.106.0 raises InternalServerError with status 500 over a 200 whose message content is a list of parts.
#
# OpenAI-compatible servers of reasoning models send `content` as parts (text, thinking) as well as a string. The
# answer came and was paid for; litellm's status 500 says that it may be tried again, and retries by status pay
# again each time. A usage of `null` in the same place is not an error: litellm writes zeros, so that the call
# looks free. The name in the response, not the one that was asked for, decides the price in `response_cost`.
#
# Output seen:
#   content as a string: answered, usage 5 + 3, requests 1
#   content as parts: InternalServerError 500, requests 1
#   content as parts, num_retries=2: InternalServerError 500, requests 3
#   usage null: answered, usage 0 + 0, requests 1
#   asked for openai/mine, answered as gpt-4o: response_cost > 0: True
# Exits 0 while this is so and 1 if it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q litellm==1.106.0 tenacity==9.1.2
cd "$work"
LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/python - <<'PY' 2>/dev/null
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import litellm

litellm.suppress_debug_info = True
reply: dict = {}
requests = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        global requests
        requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
PARTS = [{"type": "text", "text": "Yes."}]


def ask(content: object, usage: object = USAGE, name: str = "mine", **options: object) -> tuple[object, int]:
    """The response or the error, and how many requests it took."""
    global reply, requests
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": name, "choices": choices, "usage": usage}
    requests = 0
    try:
        asked = [{"role": "user", "content": "Is it?"}]
        url = f"http://127.0.0.1:{server.server_port}/v1"
        given = {"max_retries": 0, **options}
        found: object = litellm.completion("openai/mine", asked, api_base=url, api_key="none", **given)
    except Exception as error:
        found = error
    return found, requests


def told(found: object) -> str:
    if isinstance(found, Exception):
        return f"{type(found).__name__} {getattr(found, 'status_code', '')}"
    return f"answered, usage {found.usage.prompt_tokens} + {found.usage.completion_tokens}"


seen = []
for title, arguments, options in (
    ("content as a string", ("Yes.",), {}),
    ("content as parts", (PARTS,), {}),
    ("content as parts, num_retries=2", (PARTS,), {"num_retries": 2}),
    ("usage null", ("Yes.", None), {}),
):
    found, sent = ask(*arguments, **options)
    seen.append(f"{title}: {told(found)}, requests {sent}")
found, _ = ask("Yes.", USAGE, "gpt-4o")
priced = bool(found._hidden_params.get("response_cost"))
seen.append(f"asked for openai/mine, answered as gpt-4o: response_cost > 0: {priced}")
print("\n".join(seen))
expected = [
    "content as a string: answered, usage 5 + 3, requests 1",
    "content as parts: InternalServerError 500, requests 1",
    "content as parts, num_retries=2: InternalServerError 500, requests 3",
    "usage null: answered, usage 0 + 0, requests 1",
    "asked for openai/mine, answered as gpt-4o: response_cost > 0: True",
]
sys.exit(0 if seen == expected else 1)
PY
