"""What goes over a connection to an endpoint."""

from __future__ import annotations

import asyncio

import pytest

from potstill.generation.protocol import BrokenError
from potstill.generation.remote import IDLE_S, OpenAICompatible

SAID = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def answered_twice(idle_s: float) -> int:
    """The status of a second request, to a server that drops a connection at its second one. idle_s: between them.

    So does one that closes an idle connection while a request is on its way.
    """

    serving = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.readuntil(b"{}")
        writer.write(SAID)
        await reader.read(1)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        teacher = OpenAICompatible(f"http://{host}:{port}/v1", "completions", 10.0, 1, api_key_env=None)
        try:
            await teacher.send("{}")
            await asyncio.sleep(idle_s)
            return (await teacher.send("{}")).status
        finally:
            await teacher.close()
            await asyncio.gather(*serving)


def test_no_request_is_lost_on_a_connection_that_the_server_is_about_to_close():
    assert asyncio.run(answered_twice(IDLE_S + 0.2)) == 200


def test_a_busy_connection_is_used_again():
    with pytest.raises(BrokenError):
        asyncio.run(answered_twice(0.0))
