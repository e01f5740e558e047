"""Sends calls with a session id to the replica that owns the id, and all others to a quiet one.

Ray Serve imports this module in its proxies and replicas.
"""

import random
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

_CHOICES = 2


class CallRouter(ConsistentHashRouter):
    """Ray Serve's consistent hashing, with a choice of two for requests without a session id.

    The owner of an id is a function of the id and the replicas that run. If one goes, only its own
    ids get another owner.
    """

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """Replicas in ranks, of which Ray Serve takes the first that accepts.

        Of two replicas in one rank it takes the one with the shorter queue.
        """
        if pending_request is None or pending_request.metadata.session_id:
            chosen: list[list[Any]] = await super().choose_replicas(
                candidate_replicas, pending_request
            )
            return chosen
        pending_request.routing_context.should_backoff = True
        count = min(_CHOICES, len(candidate_replicas))
        return [random.sample(candidate_replicas, count)] if count else []
