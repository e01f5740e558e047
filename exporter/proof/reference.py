"""The outputs of the model in PyTorch for some texts, in float32 and in float64.

Graphs are compared with the float64 run. The float32 run shows how close float32 can come to it:
trained models have channels with values in the thousands, and rounding grows from layer to layer,
so no constant bounds the difference between two correct programs.

Each text is run alone and unpadded, with eager attention and no mask or position ids; the states
are transformers' own (``output_hidden_states``). All graphs of an export share the runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from layerguard.exporter.graph.cached_attention import RecordingCache
from layerguard.exporter.graph.convert import first_line
from layerguard.exporter.graph.experts import eager_experts
from layerguard.exporter.graph.recording import output_states
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.changes import Change
from layerguard.exporter.progress import Tick, ignore
from layerguard.runtime.checkpoints.places import Place
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutputs:
    """The outputs of the model in PyTorch for one text, in the precision of the run.

    Attributes:
        states: L + 1 arrays [tokens, hidden].
        normed: the last state after the final norm, [tokens, hidden].
        mlp: the output of each feed-forward part, [tokens, hidden].
        added: |dW x| for each change, [tokens] by place.
        logits: [vocabulary] by token, for the requested tokens.
        entries: keys and values of each block, [tokens, kv_heads * head_dim] each.
    """

    states: Sequence[Array]
    normed: Array
    mlp: Sequence[Array]
    added: Mapping[Place, Array]
    logits: Mapping[int, Array]
    entries: Sequence[tuple[Array, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The outputs for one text in both precisions.

    Attributes:
        exact: the float64 run.
        rounded: the float32 run.
    """

    exact: ModelOutputs
    rounded: ModelOutputs


class References:
    """The texts of an export check, each run once in each precision.

    Graphs request their texts before they are traced; the first ``get`` runs all of them.
    """

    def __init__(
        self,
        architecture: Architecture,
        causal: PreTrainedModel | None = None,
        feed_forwards: Sequence[nn.Module] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        """Take the backbone, its language model, and what ``mlp`` and ``added`` are read from."""
        self._architecture = architecture
        self._causal = causal
        self._feed_forwards = feed_forwards
        self._changes = changes
        self._requested: dict[bytes, tuple[Array, set[int] | None]] = {}
        self._finished: dict[bytes, Reference] = {}

    def request(self, ids: Array, ends: Sequence[int] | None = None) -> None:
        """Request a text, int64 [tokens].

        Args:
            ids: the text.
            ends: tokens whose logits are needed; if given, the run also gives keys and values.
        """
        _, earlier = self._requested.get(ids.tobytes(), (ids, None))
        all_ends = earlier if ends is None else {*(earlier or ()), *ends}
        self._requested[ids.tobytes()] = ids, all_ends

    def get(self, ids: Array) -> Reference:
        """The outputs for a requested text."""
        self.run()
        return self._finished[ids.tobytes()]

    def run(self, tick: Tick = ignore) -> None:
        """Run the requested texts that have not been run.

        The weights are float64 during the second run, which doubles their size in memory.

        Args:
            tick: receives the progress.

        Raises:
            ExportError: the number of hidden states is not the number of blocks plus 1.
        """
        pending = {key: text for key, text in self._requested.items() if key not in self._finished}
        if not pending:
            return
        done, whole = 0, 3 * sum(len(ids) for ids, _ in pending.values())

        def run_all(times: int) -> dict[bytes, ModelOutputs]:
            nonlocal done
            outputs = {}
            for key, (ids, ends) in pending.items():
                outputs[key] = self._run_text(ids, ends)
                done += times * len(ids)
                tick(done / whole)
            return outputs

        model = self._causal or self._architecture.model
        with eager(self._architecture.model), eager_experts(model):
            rounded = run_all(1)
            with float64(model):
                exact = run_all(2)  # takes twice as long
        self._finished |= {key: Reference(exact[key], rounded[key]) for key in pending}

    @torch.inference_mode()
    def _run_text(self, ids: Array, ends: set[int] | None) -> ModelOutputs:
        architecture, cache = self._architecture, RecordingCache()
        model = architecture.model if ends is None else self._causal or architecture.model
        cached = {} if ends is None else {"past_key_values": cache, "use_cache": True}
        # transformers gives the output of the last block after the final norm only
        modules = [architecture.blocks[-1], *self._feed_forwards]
        with _outputs(modules) as recorded, _lengths(self._changes) as added:
            run = model(
                input_ids=torch.from_numpy(ids[None]),
                output_hidden_states=True,
                return_dict=True,
                **cached,
            )
        if len(run.hidden_states) != architecture.layers + 1:
            raise ExportError(
                f"{type(architecture.model).__name__} gives {len(run.hidden_states)} hidden states "
                f"for {architecture.layers} blocks; the export check expected one more than "
                "blocks. Report the model"
            )
        tokens = ends if ends and self._causal else ()
        return ModelOutputs(
            states=[*(state[0].numpy() for state in run.hidden_states[:-1]), recorded[0]],
            normed=run.hidden_states[-1][0].numpy(),
            mlp=[recorded[index] for index in range(1, len(modules))],
            added=added,
            logits={token: run.logits[0, token].numpy().copy() for token in tokens},
            entries=[
                (_flat(keys), _flat(values)) for _, (keys, values) in sorted(cache.entries.items())
            ],
        )


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Use eager attention within the ``with`` block."""
    attention = model.config._attn_implementation  # noqa: SLF001
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


@contextmanager
def float64(model: nn.Module) -> Iterator[None]:
    """Run ``model`` in float64 within the ``with`` block; the weights are float64 too.

    Widening is exact, so the weights are restored bit by bit.

    Raises:
        ExportError: the model's code does not support float64.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    dtypes = [tensor.dtype for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(torch.float64)
        with _Widened():
            yield
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ExportError(
            f"{type(model).__name__} cannot be run in float64 ({first_line(error)}); the export "
            "check expected operators that support float64. Report the model"
        ) from error
    finally:
        for tensor, dtype in zip(tensors, dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


class _Widened(TorchFunctionMode):
    """Replace float32 by float64 where a model's own code requests it, as norms and softmax do."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.float:
            return args[0].to(torch.float64)
        wide = {name: _wide(value) for name, value in (kwargs or {}).items()}
        return function(*map(_wide, args), **wide)


def _wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[dict[int, Array]]:
    """The outputs of ``modules`` by index, for the one text that is run in the ``with`` block."""
    recorded: dict[int, Array] = {}

    def record(index: int) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            recorded[index] = output_states(output)[0].numpy()

        return hook

    with ExitStack() as hooks:
        for index, module in enumerate(modules):
            hooks.enter_context(module.register_forward_hook(record(index)))
        yield recorded


@contextmanager
def _lengths(changes: Sequence[Change]) -> Iterator[dict[Place, Array]]:
    """|dW x| of each change, for the one text that is run in the ``with`` block."""
    lengths: dict[Place, Array] = {}

    def record(change: Change) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            factor = change.factor.to(inputs[0].dtype)
            lengths[change.place] = (inputs[0][0] @ factor.T).norm(dim=-1).numpy()

        return hook

    with ExitStack() as hooks:
        for change in changes:
            hooks.enter_context(change.module.register_forward_pre_hook(record(change)))
        yield lengths


def _flat(entry: Tensor) -> Array:
    """[1, kv_heads, tokens, head_dim] -> [tokens, kv_heads * head_dim]."""
    return entry[0].transpose(0, 1).flatten(1).numpy()
