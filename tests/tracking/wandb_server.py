"""As much of a W&B server as the real client asks of one that takes a run, on this machine. Can be killed."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
import wandb

Server = TypeVar("Server", bound="WandbServer")

PROJECT = {"id": "p", "name": "potstill", "entity": {"id": "e", "name": "me"}}
VIEWER = {"id": "u", "username": "me", "entity": "me", "name": "me", "email": "", "flags": "{}", "teams": {"edges": []}}


class WandbServer(ThreadingHTTPServer):
    """`history`: by run id, the rows at the places the client gave them. `asked`: the names of its queries."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client drops connections when it ends."""

    def kill(self) -> None:
        """No new connection, and an end to those there are."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # ended before

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(name)
        if name == "UpsertBucket":
            return {"upsertBucket": {"bucket": self._bucket(variables["name"]), "inserted": True}}
        if name == "RunResumeStatus":
            known = variables["name"] in self.history
            return {"model": {**PROJECT, "bucket": self._bucket(variables["name"]) if known else None}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/{file}"} for file in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        return {"viewer": VIEWER} if name == "Viewer" else {}

    def stream(self, run_id: str, files: dict[str, Any]) -> None:
        if chunk := files.get("wandb-history.jsonl"):
            rows = self.history.setdefault(run_id, [])
            rows[chunk["offset"] :] = map(json.loads, chunk["content"])

    def _bucket(self, run_id: str) -> dict[str, Any]:
        rows = self.history.get(run_id, [])
        lines = {"logLineCount": 0, "historyLineCount": len(rows), "eventsLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "eventsTail": "[]"}
        config = {"config": "{}", "wandbConfig": '{"t": {}}', "summaryMetrics": "{}", "tags": []}
        return {"id": run_id, "name": run_id, "displayName": run_id, "project": PROJECT, **lines, **tails, **config}


@contextmanager
def told_of(server: Server) -> Iterator[Server]:
    """The client of this process, with a login, sends to `server`, which is gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_API_KEY", "a" * 40)
        wandb.teardown()  # the client reads the environment once
        yield server
        wandb.teardown()
        server.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            return self._reply({"data": self.server.answer(name[1] if name else "", query.get("variables") or {})})
        if self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
        return self._reply({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def log_message(self, *_: Any) -> None: ...

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
