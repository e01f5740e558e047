"""What does the n-th callback of a gateway's stream cost, with and without the call's id?

LiteLLM asks about an answer every five chunks, with all of its text so far. With the id the server
reads only the new chunks; without it, it reads all of the text again. The least of several calls
each, because the machine may have other work.
"""

import argparse
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx

from tests.bench.harness import report
from tests.bench.streams import siren_bundle
from tests.runtime.server.processes import served

_TEXT = "the boats lay near the river before rain came over low hills and fields"
_CHUNKS, _CALLBACKS, _CALLS = 5, 80, 5
_SHOWN = (1, 2, 5, 10, 20, 40, 80)
_PATH = "/beta/litellm_basic_guardrail_api"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="of a decoder; else a random Llama's")
    bundle = parser.parse_args().bundle or siren_bundle()
    words = list(islice(cycle(_TEXT.split()), _CHUNKS * _CALLBACKS))
    so_far = [" ".join(words[: _CHUNKS * n]) for n in range(1, _CALLBACKS + 1)]
    with (
        served(bundle) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        with_id = [_stream(client, f"call-{n}", so_far) for n in range(_CALLS)]
        without = {
            n: [_seconds(client, None, so_far[n - 1]) for _ in range(_CALLS)] for n in _SHOWN
        }
    rows: list[dict[str, Any]] = [
        {
            "callback": n,
            "words so far": n * _CHUNKS,
            "with the id ms": min(times[n - 1] for times in with_id) * 1e3,
            "without ms": min(without[n]) * 1e3,
        }
        for n in _SHOWN
    ]
    report("serve_callbacks", "The cost of the n-th callback of a stream", rows)


def _stream(client: httpx.Client, call: str, so_far: list[str]) -> list[float]:
    """Seconds of each callback of one answer, after its request."""
    chat = [{"role": "user", "content": "What lies near the river?"}]
    asked = {"input_type": "request", "litellm_call_id": call, "structured_messages": chat}
    client.post(_PATH, json=asked).raise_for_status()
    return [_seconds(client, call, text) for text in so_far]


def _seconds(client: httpx.Client, call: str | None, text: str) -> float:
    body = {"input_type": "response", "litellm_call_id": call, "texts": [text]}
    began = time.perf_counter()
    client.post(_PATH, json=body).raise_for_status()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
