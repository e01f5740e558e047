"""A replica that writes what it reads."""

from layerguard.runtime.server.config import Config
from layerguard.scale.ray.serving import Replica
from tests.scale.watched import watch


class WatchedReplica(Replica):
    """The replica of the application, watched."""

    async def __init__(self, config: Config) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Begin to watch."""
        watch()
        await super().__init__(config)  # type: ignore[misc]
