"""The base model of a checkpoint monitor, and the check that a checkpoint belongs to it."""

from dataclasses import dataclass, replace
from pathlib import Path

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import CHAT_TEMPLATE, TOKENIZER
from layerguard.runtime.bundle.manifest import ModelCard, TextRules
from layerguard.runtime.errors import BundleError

_MODEL = ("architecture", "model_type", "kind", "total_layers", "width", "vocabulary", "dtype")
_TEXT = ("template", "windows", "max_tokens", "max_windows", "special_tokens")


@dataclass(frozen=True, slots=True)
class Base:
    """The properties that a checkpoint must share with its base model.

    Attributes:
        bundle_id: id of the base model's bundle.
        model: the model card of that bundle.
        text: the text rules of that bundle.
        tokenizer_sha256: hash of its tokenizer.
        chat_template_sha256: hash of its chat template; None if it has none.
    """

    bundle_id: str
    model: ModelCard
    text: TextRules
    tokenizer_sha256: str
    chat_template_sha256: str | None

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> "Base":
        """The properties of a bundle."""
        files = bundle.manifest.files
        template = files.get(CHAT_TEMPLATE)
        return cls(
            bundle_id=bundle.id,
            model=bundle.manifest.model,
            text=bundle.manifest.text,
            tokenizer_sha256=files[TOKENIZER].sha256,
            chat_template_sha256=None if template is None else template.sha256,
        )


def load_checkpoint(path: str | Path, base: Base, layer: int) -> Bundle:
    """Load the bundle at ``path`` and check that it is a checkpoint of ``base``.

    The checkpoint is read with the base model's version of the text rules, so that both read the
    same tokens.

    Raises:
        BundleError: the bundle has faults, belongs to another model, or lacks state ``layer``; the
            error lists every fault.
    """
    bundle = Bundle.load(path)
    faults = _differences(base, bundle, layer)
    if faults:
        raise BundleError(bundle.path, faults)
    text = replace(bundle.manifest.text, rules_version=base.text.rules_version)
    return replace(bundle, manifest=replace(bundle.manifest, text=text))


def _differences(base: Base, bundle: Bundle, layer: int) -> list[str]:
    other = Base.from_bundle(bundle)
    remedy = f"export a fine-tune of {base.model.id} with the options that its bundle has"
    pairs = [
        *((f"model.{n}", getattr(other.model, n), getattr(base.model, n)) for n in _MODEL),
        *((f"text.{n}", getattr(other.text, n), getattr(base.text, n)) for n in _TEXT),
        ("tokenizer.json's sha256", other.tokenizer_sha256, base.tokenizer_sha256),
        ("chat_template.jinja's sha256", other.chat_template_sha256, base.chat_template_sha256),
    ]
    faults = [
        f"{name} is {_short(found)}; the base model's is {_short(expected)}: {remedy}"
        for name, found, expected in pairs
        if found != expected
    ]
    if layer > other.model.layers:
        faults.append(
            f"its graph has {other.model.layers} blocks and the monitor reads state {layer}: "
            f"{remedy}"
        )
    return faults


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:60]}..."
