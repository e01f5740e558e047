"""Adapters that turn hidden states of other engines into the input of ``Guard.score_states``.

    from layerguard.runtime.engines import vllm

    states = vllm.saved(tensors["hidden_states"], layer_ids)
    verdict = guard.score_states(states)

The package has one module for each engine: ``transformers``, ``vllm``, ``sglang``, and
``shared_memory`` for an engine in another process. Each module can be imported without its engine.
Inputs are arrays in host memory with ``__dlpack__`` or ``__array_interface__``. Outputs are views
of them, without a copy: a tuple of L + 1 arrays [tokens, hidden] for each text. bfloat16 arrays are
returned as their bits, uint16.

All modules return the same states (see ``layerguard.runtime.types``): ``states[0]`` is the
embedding output, ``states[l]`` the residual stream after block l, and the last state is the one
**before the final norm**. An engine's state after the final norm is refused. LCF reads all L + 1
states, WeightWatch the states after the blocks that it watches, SIREN the states from which its
neurons were chosen. ``score_states`` always requires all states, so that no detector can read the
wrong layer by mistake.

The engine must read the tokens that the bundle's own tokenizer and template give. Thresholds are
calibrated at the precision of the exported graph; another precision changes the scores slightly.
"""
