"""Guards on a Ray cluster: the server on Ray Serve, jobs over many rows on Ray Data.

    from layerguard.scale.ray import Workers, calibrate, score

    workers = Workers(count=8)
    calibrate("guard/", clean="clean.parquet", workers=workers)
    score("guard/", ["rows.parquet"], "verdicts.jsonl", workers=workers)

application  the server of ``layerguard serve`` as an application of Ray Serve
build        the same for ``serve run layerguard.scale.ray:build bundle=guard/``
calibrate    ``layerguard.calibration.calibrate`` with the graph run by workers
evaluate     ``layerguard.calibration.evaluate`` with the graph run by workers
score        the verdicts on the rows of files
Workers      the processes of a job

Needs ``layerguard[ray]``. A bundle, and for ``score`` the files, have the same path on every node.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerguard.scale.ray.fitting import calibrate, evaluate
    from layerguard.scale.ray.scoring import score
    from layerguard.scale.ray.serving import application, build
    from layerguard.scale.ray.summary import Scored
    from layerguard.scale.ray.workers import Workers

__all__ = ["Scored", "Workers", "application", "build", "calibrate", "evaluate", "score"]

_MODULES = {
    "fitting": ("calibrate", "evaluate"),
    "scoring": ("score",),
    "serving": ("application", "build"),
    "summary": ("Scored",),
    "workers": ("Workers",),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: jobs do not need Ray Serve, and importing it is slow."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
