"""Local models behind the protocol of endpoints: requests that wait together are answered together."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.errors import UserError
from potstill.generation.protocol import Reply

KNOWN = ("model", "messages", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop")


class LocalTeacher(ABC):
    """Requests that differ in their prompt alone go through the model together, in a thread of their own.

    batch_size: prompts at a time, at most. What a body asks for beyond KNOWN is refused, never dropped in silence.
    """

    def __init__(self, name: str, batch_size: int) -> None:
        if batch_size < 1:
            raise UserError("teacher.endpoint.batch_size", batch_size, "must be at least 1.", "For example: 8")
        self.name, self.batch_size = name, batch_size
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[Reply]]] = []
        self._running: asyncio.Task[None] | None = None

    @abstractmethod
    def answer(self, prompts: Sequence[Any], options: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        """Of each prompt (messages, or text): what was said, `stop` or `length`, tokens read, tokens written."""

    async def send(self, body: str) -> Reply:
        content = json.loads(body)
        if strange := [name for name in content if name not in KNOWN]:
            error = {"error": {"message": f"a local model does not take {', '.join(strange)}"}}
            return Reply(422, json.dumps(error).encode())
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((content, reply))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await reply

    async def close(self) -> None:
        if self._running:
            await self._running

    async def _run(self) -> None:
        await asyncio.sleep(0)  # those that are about to ask come along
        while self._waiting:
            options = _options(self._waiting[0][0])
            together = [each for each in self._waiting if _options(each[0]) == options][: self.batch_size]
            self._waiting = [each for each in self._waiting if not any(each is taken for taken in together)]
            prompts = [content.get("messages") or content.get("prompt") for content, _ in together]
            try:
                answers = await asyncio.to_thread(self.answer, prompts, options)
            except Exception as error:
                for _, reply in together:
                    if not reply.done():
                        reply.set_exception(error)
                continue
            for (content, reply), answer in zip(together, answers, strict=True):
                if not reply.done():
                    reply.set_result(Reply(200, json.dumps(_body(content, *answer)).encode()))


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in ("messages", "prompt")}


def _body(content: Mapping[str, Any], text: str, finish_reason: str, num_read: int, num_written: int) -> dict[str, Any]:
    """In the form of the OpenAI API, as an endpoint would answer."""
    said = {"message": {"role": "assistant", "content": text}} if "messages" in content else {"text": text}
    usage = {"prompt_tokens": num_read, "completion_tokens": num_written, "total_tokens": num_read + num_written}
    return {
        "choices": [{"index": 0, "finish_reason": finish_reason, **said}],
        "usage": usage,
        "model": content["model"],
    }
