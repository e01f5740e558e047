"""The names in spans, in one table.

``gen_ai.guardrail.*`` is a draft of OpenTelemetry's conventions for generative AI (repository
semantic-conventions-genai) and may change; ``gen_ai.evaluation.*`` and ``http.*`` are in published
conventions. What no convention names begins with ``layerguard``.
"""

GUARDRAIL_SPAN = "apply_guardrail"
"""The span of one answer, ``apply_guardrail BUNDLE``; also the operation's name."""
STAGES = ("queue", "tokenize", "graph", "score")
"""Its children, in order: the wait for a thread, then the timings of the verdict."""
DETECTOR_EVENT = "gen_ai.evaluation.result"
"""The event of one detector in it."""

METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
ERROR = "error.type"

OPERATION = "gen_ai.operation.name"
COMPONENT = "gen_ai.guardrail.component.name"
POLICY = "gen_ai.guardrail.policy.id"
POLICY_VERSION = "gen_ai.guardrail.policy.version"
SOURCE = "gen_ai.guardrail.source"
RESULT_TYPE = "gen_ai.guardrail.result.type"
RESULT_VALUE = "gen_ai.guardrail.result.value"
RESULT_REASON = "gen_ai.guardrail.result.reason"
RISK_SCORE = "gen_ai.guardrail.risk.score"

RULE = "gen_ai.guardrail.policy.rule.id"
DETECTOR = "gen_ai.evaluation.name"
SCORE = "gen_ai.evaluation.score.value"
LABEL = "gen_ai.evaluation.score.label"

REQUEST_ID = "layerguard.request_id"
CONTRACT = "layerguard.contract"
SETTINGS = "layerguard.settings"
MODE = "layerguard.mode"
TOKENS = "layerguard.tokens"
TRUNCATED = "layerguard.truncated"
P_VALUE = "layerguard.p_value"
THRESHOLD = "layerguard.threshold"

RESULT_TYPES = {"pass": "allow", "flag": "audit", "block": "deny", "unchecked": "allow"}
"""The draft's word for each decision."""
SOURCES = {"request": "input", "response": "output"}
"""The draft's word for each direction."""
