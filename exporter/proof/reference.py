"""What PyTorch gives for some texts, in float32 and in float64.

The float64 run is what a graph is held to. The float32 run says how close float32 can come to it:
trained models carry channels with values in the thousands, and rounding grows from layer to layer,
so no fixed number bounds the difference between two correct programs.

Each text is run alone, unpadded, with eager attention, no mask and no position ids, its states as
transformers gives them (``output_hidden_states``). All graphs of an export share the runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from layerguard.exporter.graph.cached_attention import Entry, NewEntries
from layerguard.exporter.graph.convert import first_line
from layerguard.exporter.graph.experts import plain_experts
from layerguard.exporter.graph.recording import first
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """One text through the model in PyTorch, in the precision of the run.

    Attributes:
        states: L + 1 arrays [tokens, hidden].
        normed: the last state after the final norm, [tokens, hidden].
        mlp: what each feed-forward part wrote, [tokens, hidden].
        logits: by token, [vocabulary]; of the tokens that were asked for.
        entries: by block, its keys and values, [tokens, kv_heads * head_dim] each.
    """

    states: Sequence[Array]
    normed: Array
    mlp: Sequence[Array]
    logits: Mapping[int, Array]
    entries: Sequence[tuple[Array, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """One text in both precisions.

    Attributes:
        exact: the float64 run.
        rounded: the float32 run.
    """

    exact: Observed
    rounded: Observed


class References:
    """The texts that an export compares, each run once in each precision.

    Parts ask for their texts while they are planned; the first use of ``of`` runs them all.
    """

    def __init__(
        self,
        architecture: Architecture,
        causal: PreTrainedModel | None = None,
        feed_forwards: Sequence[nn.Module] = (),
    ) -> None:
        """Take the backbone, the language model around it, and whose outputs to keep as ``mlp``."""
        self._architecture = architecture
        self._causal = causal
        self._feed_forwards = feed_forwards
        self._wanted: dict[bytes, tuple[Array, set[int] | None]] = {}
        self._found: dict[bytes, Expected] = {}

    def want(self, ids: Array, ends: Sequence[int] | None = None) -> None:
        """Ask for a text, int64 [tokens].

        Args:
            ids: the text.
            ends: tokens whose logits are needed; with it the run also gives keys and values.
        """
        _, known = self._wanted.get(ids.tobytes(), (ids, None))
        both = known if ends is None else {*(known or ()), *ends}
        self._wanted[ids.tobytes()] = ids, both

    def of(self, ids: Array) -> Expected:
        """The runs of a text that was asked for."""
        self.run()
        return self._found[ids.tobytes()]

    def run(self, tick: Tick = ignore) -> None:
        """Run what was asked for and has not been run.

        The weights are float64 for the duration of the second run: twice their size in memory.

        Args:
            tick: told how much is done.

        Raises:
            ExportError: the model does not give one hidden state more than it has blocks.
        """
        pending = {key: text for key, text in self._wanted.items() if key not in self._found}
        if not pending:
            return
        done, whole = 0, 3 * sum(len(ids) for ids, _ in pending.values())

        def observe(times: int) -> dict[bytes, Observed]:
            nonlocal done
            found = {}
            for key, (ids, ends) in pending.items():
                found[key] = self._observe(ids, ends)
                done += times * len(ids)
                tick(done / whole)
            return found

        model = self._causal or self._architecture.model
        with eager(self._architecture.model), plain_experts(model):
            rounded = observe(1)
            with float64(model):
                exact = observe(2)  # takes twice as long
        self._found |= {key: Expected(exact[key], rounded[key]) for key in pending}

    @torch.inference_mode()
    def _observe(self, ids: Array, ends: set[int] | None) -> Observed:
        architecture, entries = self._architecture, NewEntries()
        model = architecture.model if ends is None else self._causal or architecture.model
        cached = {} if ends is None else {"past_key_values": entries, "use_cache": True}
        # place 0 is the last block; transformers only gives what the final norm made of it
        watched = [architecture.blocks[-1], *self._feed_forwards]
        with _outputs(watched) as kept:
            run = model(
                input_ids=torch.from_numpy(ids[None]),
                output_hidden_states=True,
                return_dict=True,
                **cached,
            )
        if len(run.hidden_states) != architecture.layers + 1:
            raise ExportError(
                f"{type(architecture.model).__name__} gives {len(run.hidden_states)} hidden states "
                f"for {architecture.layers} blocks; expected one more than blocks, so the export "
                "cannot be proved. Report the model"
            )
        places = ends if ends and self._causal else ()
        return Observed(
            states=[*(state[0].numpy() for state in run.hidden_states[:-1]), kept[0]],
            normed=run.hidden_states[-1][0].numpy(),
            mlp=[kept[place] for place in range(1, len(watched))],
            logits={place: run.logits[0, place].numpy().copy() for place in places},
            entries=[(_flat(entry, 0), _flat(entry, 1)) for _, entry in sorted(entries.of.items())],
        )


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Plain attention within the block, as the paper writes it."""
    attention = model.config._attn_implementation  # noqa: SLF001
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


@contextmanager
def float64(model: nn.Module) -> Iterator[None]:
    """Weights and arithmetic of ``model`` in float64 within the block; then the weights as before.

    Widening is exact, so the weights come back to the bit.

    Raises:
        ExportError: the model's code cannot be run so.
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
            f"{type(model).__name__} cannot be run in float64 ({first_line(error)}); expected a "
            "model whose operators take float64, to which the graph is compared. Report the model"
        ) from error
    finally:
        for tensor, dtype in zip(tensors, dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


class _Widened(TorchFunctionMode):
    """float64 wherever a model's own code asks for float32, as norms and softmax do."""

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
    """By place in ``modules``, what each wrote for the one text run within the block."""
    kept: dict[int, Array] = {}

    def keep(place: int) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            kept[place] = first(output)[0].numpy()

        return hook

    with ExitStack() as handles:
        for place, module in enumerate(modules):
            handles.callback(module.register_forward_hook(keep(place)).remove)
        yield kept


def _flat(entry: Entry, side: int) -> Array:
    """[1, kv_heads, tokens, head_dim] -> [tokens, kv_heads * head_dim]."""
    return entry[side][0].transpose(0, 1).flatten(1).numpy()
