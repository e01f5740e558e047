"""Hidden states of other engines, in the form that ``Guard.score_states`` takes, without a copy.

    from layerguard.runtime.engines import vllm

    states = vllm.saved(tensors["hidden_states"], layer_ids)
    verdict = guard.score_states(states)

A room an engine: ``transformers``, ``vllm``, ``sglang``, and ``shared_memory`` for an engine in
another process. None imports the engine that it is named after. They take what has ``__dlpack__``
or ``__array_interface__``, in host memory, and give views of it, a tuple of L + 1 arrays
[tokens, hidden] for each text. bfloat16 comes out as its bits, uint16.

All take the same states (see ``layerguard.runtime.types``): ``states[0]`` is the embedding output,
``states[l]`` the residual stream after block l, the last one **before the final norm**. What an
engine gives otherwise is refused or asked for elsewhere. LCF reads all L + 1 states, WeightWatch
those after the blocks whose change it watches, SIREN those that its neurons were chosen from;
``score_states`` asks for all, so that no detector reads a neighbour's by mistake.

The texts must be the bundle's: the same tokens that its own tokenizer and template give. Scores are
calibrated on the exported graph's precision; an engine that runs in another moves them a little.
"""
