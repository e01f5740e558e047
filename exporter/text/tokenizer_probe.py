# ruff: noqa: RUF001  the texts are of many scripts on purpose
"""Compare the ids of two tokenizers on texts that pre-tokenizers split differently.

For some classes transformers rebuilds the tokenizer and drops the pre-tokenizer of the model's
tokenizer.json. A GPT2Tokenizer, for example, no longer splits numbers into digits, which changes
the states of every text with a number. The file is authoritative.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

_TEXTS = (
    "", " ", "hello", " hello world ", "Hello, World!", "The year 2024 had 366 days.",
    "3.14159 + 10,000 = 10003.14159", "0123456789 ١٢٣ ४५६ ²³ Ⅷ ½", "v1.2.3-rc4 0xFF 1e-9",
    "I'm you're we've they'd he'll it's DON'T can't 'tis", "tab\tnew\nline\r\nend  two   three    ",
    "\n\n\n  \n\t\t x", "  leading", "trailing  ", "a  b   c    d     e",
    "def f(x):\n    return x ** 2  # square\n\n\tif x != 0:\n\t\tpass\n",
    "<html><b>&amp;</b></html>",
    "https://example.org/a?b=c&d=e#f", "user@example.org", "C:\\path\\to\\file.txt",
    "CamelCaseIdentifier snake_case_name kebab-case", "ALL CAPS and Mixed",
    "e\u0301 \u00e9 \u212b \ufb01",
    "Ünïcödé naïve façade Straße", "Привет, мир", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم",
    "नमस्ते दुनिया", "你好，世界。今天天气很好！", "こんにちは世界カタカナ", "안녕하세요 세계",
    "สวัสดีชาวโลก",
    "🙂 👩‍👩‍👧‍👦 🇺🇳 ❤️ ✨", "!!! ... ??? --- ___ ***", "(a) [b] {c} «d» “e” ‘f’",
    "$5.00 €10 £20 100%",
    "a\u00a0b\u2003c\u200bd\u3000e", "x=1;y=22;z=333;w=4444;v=55555", "1 12 123 1234 12345 123456",
    "\u0000\u0007\u007f\ufeff\ufffd", "𝕏𝒴 𐍈 🜁",
)  # fmt: skip
_FROM_VOCABULARY = 2000


def count_differences(one: Tokenizer, other: Tokenizer, *, special: bool) -> tuple[int, int]:
    """The number of texts whose ids differ, and the number of all texts.

    The texts are a fixed list and strings from the vocabulary of ``one``.

    Args:
        one: a tokenizer.
        other: the tokenizer to compare with it.
        special: add the special tokens that each puts around a text.
    """
    texts = list(_probes(one))
    ids = [
        [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=special)]
        for tokenizer in (one, other)
    ]
    return sum(left != right for left, right in zip(*ids, strict=True)), len(texts)


def _probes(tokenizer: Tokenizer) -> Iterator[str]:
    yield from _TEXTS
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    for token in range(0, size, max(1, size // _FROM_VOCABULARY)):
        text = tokenizer.decode([token], skip_special_tokens=False)
        yield text
        yield f"x{text} {text}{text}1"
