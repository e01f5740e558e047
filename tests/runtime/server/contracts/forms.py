"""What the clients of each contract send, and how they read the answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT = "the garden was quiet"
CHAT = [{"role": "user", "content": TEXT}]


@dataclass(frozen=True)
class Form:
    """One kind of call.

    Attributes:
        contract: name of its contract.
        path: where it goes; ``MODEL`` stands for the bundle.
        body: as the client sends it.
        blocks: whether the client stops the text, by the JSON of the answer.
        says: the sentence in the JSON of an error.
        ignores_status: whether the client goes on after an error, so that none may be sent.
        wrong: a body that the contract does not allow.
    """

    contract: str
    path: str
    body: Mapping[str, Any]
    blocks: Callable[[Any], bool]
    says: Callable[[Any], str]
    ignores_status: bool = False
    wrong: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.contract} {self.path}"


_LITELLM = {
    "input_type": "request", "litellm_call_id": "call-1", "litellm_trace_id": "trace-1",
    "structured_messages": CHAT, "images": None, "tools": None, "texts": [TEXT],
    "request_data": {"user_api_key_hash": "00"}, "request_headers": {"host": "[present]"},
    "litellm_version": "1.108.7", "additional_provider_specific_params": {},
    "tool_calls": None, "model": "chat",
}  # fmt: skip


def _portkey(event: str) -> dict[str, Any]:
    return {
        "request": {
            "json": {"model": "chat", "messages": CHAT},
            "text": TEXT,
            "isStreamingRequest": False,
            "isTransformed": False,
        },
        "response": {"json": {}, "text": "", "statusCode": None, "isTransformed": False},
        "provider": "openai",
        "requestType": "chatComplete",
        "metadata": {},
        "eventType": event,
    }


FORMS = (
    Form("native", "/v1/check", {"text": TEXT}, lambda a: a["blocked"],
         lambda a: a["error"]["message"]),
    Form("litellm", "/beta/litellm_basic_guardrail_api", _LITELLM,
         lambda a: a["action"] == "BLOCKED", lambda a: a["blocked_reason"]),
    Form("litellm", "/beta/litellm_basic_guardrail_api",
         {**_LITELLM, "input_type": "response", "structured_messages": None},
         lambda a: a["action"] == "BLOCKED", lambda a: a["blocked_reason"]),
    Form("moderations", "/v1/moderations", {"input": TEXT, "model": "omni-moderation-latest"},
         lambda a: a["results"][0]["flagged"], lambda a: a["error"]["message"]),
    Form("fms", "/api/v1/text/contents",
         {"contents": [TEXT], "detector_params": {"threshold": 0.5}},
         lambda a: bool(a[0]), lambda a: a["message"]),
    Form("agentgateway", "/request", {"body": {"messages": CHAT}},
         lambda a: "body" in a["action"], lambda a: a["action"]["body"]),
    Form("agentgateway", "/request", {"messages": CHAT, "model": "chat"},
         lambda a: a["messages"] == [], lambda a: a["action"]["body"]),
    Form("agentgateway", "/response",
         {"body": {"choices": [{"message": {"role": "assistant", "content": TEXT}}]}},
         lambda a: "body" in a["action"], lambda a: a["action"]["body"]),
    Form("nemo", "/v1/classify", {"input": TEXT}, lambda a: a["jailbreak"],
         lambda a: a["error"]["message"], ignores_status=True),
    Form("nemo", "/classify", {"input": TEXT}, lambda a: a["jailbreak"],
         lambda a: a["error"]["message"], ignores_status=True),
    Form("nemo", "/model", {"prompt": TEXT}, lambda a: a["jailbreak"],
         lambda a: a["error"]["message"], ignores_status=True),
    Form("nemo", "/classify", {"model": "guard", "input": TEXT},
         lambda a: a["data"][0]["label"] == "layerguard", lambda a: a["error"]["message"],
         ignores_status=True, wrong={"model": "guard"}),
    Form("kserve-v1", "/v1/models/MODEL:predict", {"instances": [TEXT]},
         lambda a: a["predictions"][0]["1"] >= 0.5, lambda a: a["error"]),
    Form("oip-v2", "/v2/models/MODEL/infer",
         {"id": "1", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
                                 "data": [TEXT]}]},
         lambda a: a["outputs"][1]["data"][0], lambda a: a["error"]),
    Form("portkey", "/portkey", _portkey("beforeRequestHook"), lambda a: not a["verdict"],
         lambda a: a["data"]["error"], ignores_status=True),
    Form("portkey", "/portkey",
         {**_portkey("afterRequestHook"), "response": {"json": {}, "text": "rain came"}},
         lambda a: not a["verdict"], lambda a: a["data"]["error"], ignores_status=True),
    Form("lakera", "/v2/guard", {"messages": CHAT, "project_id": None, "payload": True,
                                 "breakdown": True, "dev_info": True},
         lambda a: a["flagged"], lambda a: a["error"]["message"]),
    Form("azure-prompt-shields", "/contentsafety/text:shieldPrompt?api-version=2024-09-01",
         {"userPrompt": TEXT, "documents": []},
         lambda a: a["userPromptAnalysis"]["attackDetected"], lambda a: a["error"]["message"]),
)  # fmt: skip
