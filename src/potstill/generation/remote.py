"""A teacher behind an endpoint that speaks the OpenAI API."""

from __future__ import annotations

import logging
import os
from urllib.parse import urlsplit

import httpx

from potstill.errors import UserError
from potstill.generation.protocol import BrokenError, Reply, UnreachableError
from potstill.tracking.secrets import HIDDEN

# A connection that was idle for longer is not used again. Many servers close theirs after 2 to 5 s: a request that is
# sent at that moment is lost, may have been paid for, and costs an attempt.
IDLE_S = 1.0
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class OpenAICompatible:
    """Any server with `/chat/completions` or `/completions` below `base_url`.

    api_key_env: the environment variable that holds the key; None: the endpoint wants none. The key is read here, sent,
    and hidden wherever a reply repeats it.
    """

    def __init__(
        self, base_url: str, api: str, request_s: float, max_connections: int, api_key_env: str | None
    ) -> None:
        self.name = endpoint_name(base_url, api)
        self._key = _key(api_key_env)
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        # httpx tells of every request at INFO, which the console shows
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(request_s, connect=min(10.0, request_s)),
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=IDLE_S
            ),
            follow_redirects=False,  # a redirect would take the key elsewhere
        )

    async def send(self, body: str) -> Reply:
        try:
            response = await self._client.post(self.name, content=body.encode())
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnreachableError(self._hidden_text(_said(error))) from error
        except httpx.HTTPError as error:
            raise BrokenError(self._hidden_text(_said(error))) from error
        return Reply(response.status_code, self._hidden(response.content), dict(response.headers))

    async def close(self) -> None:
        await self._client.aclose()

    def _hidden(self, raw: bytes) -> bytes:
        return raw.replace(self._key.encode(), HIDDEN.encode()) if self._key else raw

    def _hidden_text(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text


def endpoint_name(base_url: str, api: str) -> str:
    """The address that is asked. Raises UserError for one that cannot be, or that holds a password."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        fix = "For example: teacher.endpoint.base_url=http://localhost:8000/v1"
        raise UserError("teacher.endpoint.base_url", base_url, "is no address of a server.", fix)
    if parts.username or parts.password or parts.query:
        problem = "holds a credential or a query, and the address is written into every record."
        fix = "Leave it out; put the key into the environment (teacher.endpoint.api_key_env=NAME)."
        raise UserError("teacher.endpoint.base_url", f"{parts.scheme}://{HIDDEN}", problem, fix)
    return base_url.rstrip("/") + PATHS[api]


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        problem = "names an environment variable that is not set, or is empty."
        fix = f"export {variable}=...   For an endpoint without keys: teacher.endpoint.api_key_env=null"
        # an unlikely name for a variable is likely a key that was put here
        shown = variable if variable.replace("_", "").isalnum() and variable == variable.upper() else HIDDEN
        raise UserError("teacher.endpoint.api_key_env", shown, problem, fix.replace(variable, shown))
    return os.environ[variable]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
