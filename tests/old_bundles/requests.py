"""What old bundles are asked, and what of a verdict is compared."""

from typing import Any

from layerguard.runtime import Verdict

REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"text": "w20 w31 w40 w52 w60"},
    "harmful": {"text": "w15 w16 w17 w33 w44"},
    "unknown words": {"text": "Привет 你好 w20"},
    "empty": {"text": ""},
    "pair": {"prompt": "w21 w22 w23", "response": "w24 w25"},
    "domain": {"text": "w20 w31 w40 w52 w60", "domain": "mail"},
    "chat": {
        "messages": [
            {"role": "system", "content": "w30 w31"},
            {"role": "user", "content": "w32 w33 w34"},
            {"role": "assistant", "content": "w35"},
            {"role": "user", "content": "w36 w37"},
        ]
    },
    "long": {"text": "w20 w31 w40 w52 w60 " * 40},
}
"""Arguments of ``Guard.check``, by name."""


def figures(verdict: Verdict) -> dict[str, Any]:
    """What has to stay as it was: the decision, and each detector's score and p-value."""
    return {
        "flagged": verdict.flagged,
        "status": verdict.status,
        "truncated": verdict.truncated,
        "readings": {
            name: {
                "score": reading.score,
                "threshold": reading.threshold,
                "p_value": reading.p_value,
                "flagged": reading.flagged,
            }
            for name, reading in verdict.readings.items()
        },
    }
