"""The server that most would write: one request, one run of the model, in one of many threads."""

import argparse
import asyncio

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layerguard.runtime import Guard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--port", type=int)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    guard = Guard.load(arguments.bundle.partition("=")[2], threads=arguments.threads)

    async def ready(request: Request) -> Response:
        del request
        return Response()

    async def check(request: Request) -> Response:
        text = (await request.json())["text"]
        return JSONResponse((await asyncio.to_thread(guard.check, text)).to_json())

    routes = [Route("/readyz", ready), Route("/v1/check", check, methods=["POST"])]
    uvicorn.run(Starlette(routes=routes), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
