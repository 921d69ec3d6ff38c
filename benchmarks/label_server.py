"""A text classifier behind a chat endpoint of the OpenAI API: to every message it says the name of one label.

    python benchmarks/label_server.py ../shared/teachers/clinc150_minilm_l6 --port 8911

A teacher whose logits are known, as one of which there is only the text: what that costs can then be measured. Messages
that wait together go through the model together where they have equally many tokens, so that none is padded.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

KNOWN = {"model", "messages", "max_tokens", "temperature"}
MAX_TOGETHER = 64
Reply = tuple[int, dict[str, Any]]  # status and body
Said = tuple[str, int]  # a label, and how many tokens were read for it


class Classifier:
    """path: of the model with its tokenizer. Asked by many threads, it answers in one of its own."""

    def __init__(self, path: str) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
        self._waiting: SimpleQueue[tuple[str, Future[Said]]] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def say(self, text: str) -> Said:
        said: Future[Said] = Future()
        self._waiting.put((text, said))
        return said.result()

    def _work(self) -> None:
        while True:
            together = [self._waiting.get()]
            while len(together) < MAX_TOGETHER and not self._waiting.empty():
                together.append(self._waiting.get())
            try:
                answers = self._answers([text for text, _ in together])
            except Exception as error:
                for _, said in together:
                    said.set_exception(error)
                continue
            for (_, said), answer in zip(together, answers, strict=True):
                said.set_result(answer)

    @torch.inference_mode()
    def _answers(self, texts: Sequence[str]) -> list[Said]:
        ids = self.tokenizer(list(texts), truncation=True)["input_ids"]
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, each in enumerate(ids):
            by_length[len(each)].append(place)
        answers: dict[int, Said] = {}
        for length, places in by_length.items():
            best = self.model(input_ids=torch.tensor([ids[place] for place in places])).logits.argmax(dim=1)
            names = [self.model.config.id2label[column] for column in best.tolist()]
            answers |= {place: (name, length) for place, name in zip(places, names, strict=True)}
        return [answers[place] for place in range(len(texts))]


class LabelServer(ThreadingHTTPServer):
    """port: 0 for one that is free."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name, self.classifier = Path(path).name, Classifier(path)

    def reply(self, body: dict[str, Any]) -> Reply:
        if strange := sorted(body.keys() - KNOWN):
            return refusal(400, f"this server does not take {', '.join(strange)}")
        if body.get("model") != self.name:
            return refusal(404, f"The model `{body.get('model')}` does not exist: this is {self.name}")
        if not body.get("messages"):
            return refusal(400, "messages is missing")
        label, num_read = self.classifier.say(body["messages"][-1]["content"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": label}}
        usage = {"prompt_tokens": num_read, "completion_tokens": 1, "total_tokens": num_read + 1}
        return 200, {"object": "chat.completion", "model": self.name, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    server: LabelServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        is_chat = self.path == "/v1/chat/completions"
        status, reply = self.server.reply(json.loads(body)) if is_chat else refusal(404, "only chat completions")
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The client keeps a better record."""


def refusal(status: int, message: str) -> Reply:
    return status, {"error": {"message": message}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="directory of the classifier")
    parser.add_argument("--port", type=int, default=8911)
    arguments = parser.parse_args()
    server = LabelServer(arguments.path, arguments.port)
    print(f"{server.name} answers at http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
