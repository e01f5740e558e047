"""Adapters that put a guard into agent frameworks, gateways and web servers, in process.

    from layerguard.integrations.langchain import GuardMiddleware

    agent = create_agent(model, middleware=[GuardMiddleware("guard/")])

The package has one module for each framework: ``langchain``, ``openai_agents``, ``pydantic_ai``,
``openai_guardrails``, ``litellm``, and ``asgi`` for web applications with OpenAI's interface. A
module can be imported only where its framework is installed; ``asgi`` needs none.

Every adapter takes a ``Guard`` or the path of a bundle. It checks in a thread under asyncio, keeps
nothing of a request after its answer, and fails closed: if the guard raises an error, the request
is treated like a flagged one. Users see a fixed sentence; reasons and scores go to the logger
``layerguard.integrations``.
"""
