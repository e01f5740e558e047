"""SIREN: is this text harmful?

"LLM Safety From Within", arXiv 2604.18519, section "Method"; float64 oracle in
``tests/reference/siren.py``. Reads selected neurons of the states' mean over tokens:
score = softmax(MLP(concat_l alpha_l x_l[neurons_l]))[1], in [0, 1]. The evidence of a flagged text
is each layer's contribution to the logit difference, harmful minus safe: input x gradient.

Agent-SIREN reads an agent's turns and tool calls: a linear readout of the last token's state. It is
the same detector with a network of one linear map. It has its own name, so that a bundle can hold
both.
"""

from layerguard.runtime.detectors.kind import DetectorKind, always
from layerguard.runtime.types import Tap

NAME = "siren"
AGENT_NAME = "agent_siren"

KIND = DetectorKind(
    name=NAME,
    question="is this text harmful?",
    tap=Tap(view="content", pooling="mean"),
    measure=always("logit"),
)

AGENT_KIND = DetectorKind(
    name=AGENT_NAME,
    question="is this agent doing harm?",
    tap=Tap(view="trajectory", pooling="last"),
    measure=always("logit"),
)
