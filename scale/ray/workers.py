"""Runs work in the processes of a Ray cluster, with Ray Data, and gives the results in order."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerguard.runtime.errors import InputError, LayerGuardError
from layerguard.runtime.model.session import Device

try:
    import ray.data
    from ray import cloudpickle
except ImportError as error:
    raise ImportError(
        "layerguard.scale.ray needs Ray; run: pip install 'layerguard[ray]'"
    ) from error

Work = Callable[[Any], Iterator[Any]]
"""Gives the results of one item; it stays in its process."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes of a job. Each loads the bundle once.

    Attributes:
        count: how many.
        cpus: of each, as Ray counts them.
        gpus: of each; ``device`` is then usually ``cuda``.
        device: where the graph runs.
        threads: threads of one operator, in each process.

    Raises:
        InputError: a number is not positive; only ``gpus`` may be 0.
    """

    count: int = 1
    cpus: float = 1
    gpus: float = 0
    device: Device = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        least = {"count": 1, "cpus": 0.001, "gpus": 0, "threads": 1}
        faults = [
            f"{name}: found {value}; expected at least {least[name]}"
            for name in least
            if not math.isfinite(value := getattr(self, name)) or value < least[name]
        ]
        if faults:
            raise InputError("; ".join(faults))

    def results(self, make: Callable[[], Work], items: Sequence[Any]) -> Iterator[Any]:
        """The results for all items, in their order, as they arrive.

        Args:
            make: makes the work in each process, when the first item is there.
            items: arguments of the work; they, ``make`` and the results can be pickled.

        Raises:
            LayerGuardError: as the work or ``make`` raised it.
        """
        if not items:
            return
        rows = [{"number": i, "item": cloudpickle.dumps(item)} for i, item in enumerate(items)]
        given = ray.data.from_items(rows, override_num_blocks=len(rows))
        given.context.execution_options.preserve_order = True
        given.context.enable_progress_bars = False
        done = given.map_batches(
            _Worker,
            fn_constructor_args=(cloudpickle.dumps(make),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.count, len(rows))),
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        last = -1
        for row in done.iter_rows():
            result = cloudpickle.loads(row["result"])
            if row["failed"]:
                raise result
            if row["number"] not in (last, last + 1):
                raise AssertionError(f"Ray Data gave item {row['number']} after item {last}")
            last = row["number"]
            yield result


class _Worker:
    """Does the work in one process; errors of ours are results, which Ray does not wrap."""

    def __init__(self, make: bytes) -> None:
        self._make: Callable[[], Work] = cloudpickle.loads(make)
        self._work: Work | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        number = int(batch["number"][0])
        try:
            self._work = self._work or self._make()
            for result in self._work(cloudpickle.loads(batch["item"][0])):
                yield _row(number, result)
        except LayerGuardError as error:
            yield _row(number, error, failed=True)


def _row(number: int, result: Any, *, failed: bool = False) -> dict[str, list[Any]]:
    return {"number": [number], "result": [cloudpickle.dumps(result)], "failed": [failed]}
