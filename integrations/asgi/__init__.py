"""Middleware for web applications with OpenAI's chat and text completions (FastAPI, Starlette).

    app.add_middleware(GuardMiddleware, guard="guard/")

It is pure ASGI, under asyncio, and needs no framework. It checks a request before the application
sees it, and an answer before the client sees it. A streamed answer is checked chunk by chunk, and
its events are sent once a verdict covers them.

Refusals are errors in OpenAI's form, with one of these codes; after the first events of a stream,
the error is an event.

    content_filter  status 400  a text is flagged
    unreadable      status 400  the guard cannot read the request, for example an image
    too_long        status 413  the body has more than ``max_body_bytes``
    guard_failed    status 503  the guard raised an error, or cannot read the answer
"""

from layerguard.integrations.asgi.middleware import GuardMiddleware

__all__ = ["GuardMiddleware"]
