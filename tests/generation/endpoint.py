"""A small endpoint of the OpenAI API, as a process of its own: answers, and every way of failing to.

    python -m tests.generation.endpoint LOG [key=value ...]

Prints its port. LOG: one line of JSON a request: when, the prompt, the status. What it does is told by the prompt (a
word in capitals, see `SHAPES`) or, for all of them, by the options: `status=429` with `times=N` of them (default: every
one) and `retry_after=TEXT`; `delay_s`; `key` that a request must carry; `queue`: requests are answered one at a time.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOCK, QUEUE, SEEN = threading.Lock(), threading.Lock(), Counter()
GOOD = "good"
# word -> status, body, how often before it is answered well
SHAPES: dict[str, tuple[int, bytes, float]] = {
    "REFUSED": (400, b'{"error": {"message": "the prompt is too long"}}', float("inf")),
    "BROKEN": (200, b'{"choices": [{"mess', float("inf")),
    "MALFORMED": (200, b'{"choices": [{"mess', 2),
    "EMPTY": (200, b"", 1),
    "TRUNCATED": (200, b'{"choices": [{"message": {"con', 1),
    "CHOICELESS": (200, b'{"object": "chat.completion"}', 1),
    "OVERLOADED": (500, b"Internal Server Error", 1),
    "QUOTA": (429, b'{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}', 99),
    "MODEL": (404, b'{"error": {"message": "The model `x` does not exist"}}', float("inf")),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: dict[str, Any] = {}  # noqa: RUF012
    log: Path

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        time.sleep(float(self.options.get("delay_s", 0)))
        if self.options.get("queue"):
            with QUEUE:
                time.sleep(float(self.options["queue"]))
        status, content, shape = self.decide(prompt, body)
        with LOCK, self.log.open("a") as log:
            log.write(json.dumps({"at": time.time(), "prompt": prompt, "status": status, "body": body}) + "\n")
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status == 429 and "retry_after" in self.options:
            self.send_header("retry-after", self.options["retry_after"])
        self.send_header("content-length", str(len(content) + (100 if shape == "TRUNCATED" else 0)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = shape == "TRUNCATED"

    def decide(self, prompt: str, body: dict[str, Any]) -> tuple[int, bytes, str]:
        key = self.options.get("key")
        if key and self.headers.get("authorization") != f"Bearer {key}":
            said = f"Incorrect API key provided: {self.headers.get('authorization')}"
            return 401, json.dumps({"error": {"message": said}}).encode(), "key"
        with LOCK:
            SEEN["all"] += 1
            if "status" in self.options and SEEN["all"] <= float(self.options.get("times", "inf")):
                return int(self.options["status"]), b'{"error": {"message": "too many requests"}}', "all"
            for word, (status, content, times) in SHAPES.items():
                if word in prompt:
                    SEEN[prompt] += 1
                    if SEEN[prompt] <= times:
                        return status, content, word
        return 200, json.dumps(answer(prompt, body, self.options)).encode(), GOOD

    def log_message(self, format: str, *args: Any) -> None:
        """Its own log says more."""


def answer(prompt: str, body: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """SAY: what stands behind it is said. Else something that depends on the prompt alone."""
    text = prompt.partition("SAY ")[2] or hashlib.sha256(prompt.encode()).hexdigest()[:12]
    said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    reason = "length" if "CUT" in prompt else "stop"
    choices = [{"index": n, "finish_reason": reason, **said} for n in range(int(body.get("n") or 1))]
    if body.get("logprobs") and "logprobs" in options:
        tops = [{"token": "a", "logprob": -1.0}] * min(int(body.get("top_logprobs") or 0), int(options["logprobs"]))
        for choice in choices:
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": tops}]}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text), "total_tokens": len(prompt) + len(text)}
    return {"id": str(time.time()), "choices": choices, "usage": usage}


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    Handler.log = Path(sys.argv[1])
    Handler.options = dict(text.split("=", 1) for text in sys.argv[2:])
    server = Server(("127.0.0.1", int(Handler.options.get("port", 0))), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
