"""Sizes and chat templates of the small backbones; read where no model is made."""

LAYERS, WIDTH = 4, 32
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
)
# what comes before a text, and how a chat is laid out
BACKBONES = {
    "llama": ("<s> $A", "{{ bos_token }}" + _TURNS),
    "qwen3": ("$A", _NO_SYSTEM + _TURNS),
}
