"""Reads texts by a bundle's text rules, without its graphs: what the Python model needs of it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerguard.runtime.argument_checks import check_keys
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.load import manifest_bytes
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.fused_inputs import (
    fused_inputs,
    read_fused,
    token_sources,
)
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.tokens import TokenReader, Windows
from layerguard.runtime.types import Array

_SHORTEST = 5
"""Bit length below which all texts run together: the fixed cost of a run dominates there."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that was read, or one of its windows.

    Attributes:
        windows: one of each source; see ``read_fused``.
        truncated: whether a part was not read.
        unread: whether a part cannot be read, such as an image.
        size: texts of the same size may share a run: their lengths differ by less than twice, or
            both are short.
    """

    windows: tuple[Windows, ...]
    truncated: bool
    unread: bool
    size: int


class TextReader:
    """Reads requests as the bundle's guard does. Thread-safe.

    Attributes:
        flags_unread: whether a text with unread parts is flagged.
        distance: the detector that says how unfamiliar a text is, if such texts are flagged; else
            empty.
        most_texts: texts that may share a run of the graph.
    """

    def __init__(self, folder: Path, bundle_id: str) -> None:
        """Read the manifest, tokenizer and chat template in a folder.

        Raises:
            BundleError: they are not those of the bundle with this id.
        """
        data = manifest_bytes(folder, "layerguard export-triton")
        found = hashlib.sha256(data).hexdigest()[:16]
        manifest, faults = read_manifest(data)
        if found != bundle_id:
            faults = [f"its id is {found}; expected {bundle_id}: write the repository again"]
        if manifest is None or faults:
            raise BundleError(folder, faults)
        self._reader = TokenReader(Bundle(folder, manifest, {}, {}, bundle_id))
        self._sources = token_sources(manifest)
        self._views = {view for view, _ in self._sources}
        self._rules, self._fused = manifest.text, manifest.fused["score"]
        self.flags_unread = self._rules.on_unread == "flag"
        self.distance = next(
            (
                name
                for name, card in manifest.detectors.items()
                if not REGISTRY[name].decides and card.settings.get("on_unfamiliar") == "flag"
            ),
            "",
        )
        self._threshold = manifest.detectors[self.distance].threshold if self.distance else 0.0
        self._policy = manifest.decision.policy if manifest.decision else "any"
        self.most_texts = 1 if manifest.model.dtype == "int8" else 0

    def plain(self, text: str) -> list[Text]:
        """One text.

        Raises:
            InputError: as ``read``.
        """
        return self.read(request(text, limits=self._reader.limits))

    def table(self, content: str) -> list[Text]:
        """A request in JSON: the arguments of ``Guard.check``, but ``domain``.

        Raises:
            InputError: it is not a JSON object of these, or as ``read``.
        """
        try:
            arguments = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"request: found no JSON ({error}); expected an object") from error
        if not isinstance(arguments, dict):
            raise InputError(f"request: found {type(arguments).__name__}; expected an object")
        check_keys(arguments)
        return self.read(request(**arguments, limits=self._reader.limits))

    def read(self, one: Request) -> list[Text]:
        """A request's windows; the worst of them decides.

        Raises:
            InputError: it is beyond the limits, the chat template refuses it, it has unread parts
                and such requests are refused, or it has several windows and all detectors must
                flag it, which no window alone decides.
        """
        one = one.within(self._reader.limits)
        unread = self._reader.unread(one, self._views)
        if unread and self._rules.on_unread == "refuse":
            raise InputError(
                f"found {', '.join(unread)}, which no detector of the bundle can read; expected "
                "only text that they read"
            )
        read = read_fused(self._reader, self._sources, one)
        count = max(len(source.windows) for source in read)
        if count > 1 and self._policy == "all":
            raise InputError(
                "found a chat that is read in several windows; expected one that is read in one, "
                "because all detectors must flag it: use `layerguard serve` for such chats"
            )
        truncated = any(source.truncated for source in read)
        texts = []
        for i in range(count):
            windows = tuple(_window(source, i) for source in read)
            longest = max(len(source.windows[0]) for source in windows)
            size = max(longest.bit_length(), _SHORTEST)
            texts.append(Text(windows, truncated, bool(unread), size))
        return texts

    def inputs(self, texts: Sequence[Text]) -> dict[str, Array]:
        """The inputs of the fused graph for some texts."""
        pad, roles = self._rules.pad_token_id, "roles" in self._fused.inputs
        return fused_inputs([text.windows for text in texts], pad, reads_roles=roles)

    def is_unfamiliar(self, distances: Array) -> Array:
        """Whether texts are flagged for their scores of the detector ``distance``; NaN is."""
        flags: Array = ~(distances <= self._threshold)
        return flags


def _window(source: Windows, i: int) -> Windows:
    """One window of a source; its last one if it has fewer."""
    last = min(i, len(source.windows) - 1)
    return replace(source, windows=source.windows[last:][:1], roles=source.roles[last:][:1])
