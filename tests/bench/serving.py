"""What measurements of the server share: texts, and clients that cost little themselves."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.bench.minilm import PROMPTS


def texts(words: int, number: int) -> list[str]:
    """Different texts of so many words, out of the project's own clean prompts."""
    rows = (PROMPTS / "clean.jsonl").read_text(encoding="utf-8").splitlines()
    every = " ".join(json.loads(row)["text"] for row in rows).split()
    starts = [(n * 41) % len(every) for n in range(number)]
    return [f"{n}: " + " ".join((every * 2)[at : at + words - 1]) for n, at in enumerate(starts)]


class Client:
    """One connection to the server, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any, *headers: str) -> tuple[int, Any]:
        """The status of the response, and its JSON."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        content = json.dumps(body).encode()
        head = [f"POST {path} HTTP/1.1", "host: guard", *headers, f"content-length: {len(content)}"]
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        size = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        answer = await reader.readexactly(size)
        if "connection: close" in lines:
            self.close()
        return int(lines[0].split()[1]), json.loads(answer)

    def close(self) -> None:
        """End the connection; the next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def check_body(text: str) -> dict[str, object]:
    """A request to check one text."""
    return {"text": text}


async def ask(
    port: int,
    asked: list[str],
    clients: int,
    seconds: float,
    path: str = "/v1/check",
    body: Callable[[str], Any] = check_body,
) -> list[float]:
    """Seconds of each request, when every client asks again as soon as it has its answer."""
    end = time.perf_counter() + seconds
    times: list[float] = []
    numbers = count()

    async def one() -> None:
        client = Client(port)
        while (began := time.perf_counter()) < end:
            text = asked[next(numbers) % len(asked)]
            status, answer = await client.post(path, body(text), "content-type: application/json")
            if status != 200:
                raise RuntimeError(f"found status {status} ({answer}); expected 200")
            times.append(time.perf_counter() - began)
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return times
