"""What all streams of one guard share, and whether a request can be read token by token."""

from collections.abc import Mapping
from threading import Lock

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import Detector
from layerguard.runtime.model.forking import renew_after_fork
from layerguard.runtime.model.session import Session
from layerguard.runtime.streaming.asked import Asked
from layerguard.runtime.streaming.decoder import Decoder
from layerguard.runtime.streaming.growing import is_cuttable
from layerguard.runtime.streaming.pools import KINDS
from layerguard.runtime.streaming.views import ContentView, ConversationView, Means, Opening
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array, View

Views = list[ContentView | ConversationView]

_STREAMED: tuple[View, ...] = ("prompt", "conversation", "content")


class Opener:
    """Opens the views of streams; thread-safe. The decode graph is opened when first needed.

    Attributes:
        blocks: of the exported model.
        obstacle: why no request can be read token by token; None where they can.
    """

    def __init__(
        self,
        bundle: Bundle,
        reader: TokenReader,
        session: Session,
        detectors: Mapping[str, Detector],
    ) -> None:
        self.reader = reader
        self.detectors = detectors
        self.vocabulary = bundle.manifest.model.vocabulary
        self.blocks = bundle.manifest.model.layers
        self.obstacle = _obstacle(bundle, detectors)
        self._bundle, self._session = bundle, session
        self._window = bundle.manifest.text.max_tokens
        self._means: Means | None = None
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def means(self) -> Means:
        """The decode graph and the tokenizer.

        Raises:
            InputError: the bundle has no decode graph.
            BundleError: it cannot be opened, or is not the one that the guard was loaded with.
        """
        with self._lock:
            if self._means is None:
                alike = self._session
                decoder = Decoder(self._bundle, alike.device, alike.threads, alike.weights)
                self._bundle.check_unchanged(self._bundle.manifest.graphs["decode"].file)
                self._means = Means(
                    decoder=decoder,
                    reader=self.reader,
                    cuttable=is_cuttable(self.reader.tokenizer),
                    padding=self._bundle.manifest.text.pad_token_id,
                )
        return self._means

    def renew(self) -> None:
        """In a forked process: another thread of the parent may have held the lock."""
        self._lock = Lock()

    def views(
        self, asked: Asked, *, want_logits: bool = False, steering: Array | None = None
    ) -> Views | None:
        """Views for the detectors, their prompt read; None where it is longer than a window.

        With ``want_logits`` the first is the conversation, whether a detector reads it or not.
        """
        by_view: dict[View, dict[str, Detector]] = {view: {} for view in _STREAMED}
        for name, detector in self.detectors.items():
            by_view[detector.tap.view][name] = detector
        at_prompt, at_answer, on_content = by_view.values()
        found: Views = []
        if at_prompt or at_answer or want_logits:
            opening = self.reader.read(asked.opening, {"conversation"})["conversation"]
            if len(opening.windows) > 1 or opening.tokens > self._room({**at_prompt, **at_answer}):
                return None
            found.append(
                ConversationView(
                    Opening(opening.windows[0], opening.roles[0], asked.answered),
                    self.means,
                    at_prompt,
                    at_answer,
                    self._room(at_answer),
                    want_logits=want_logits,
                    steering=steering,
                )
            )
        if on_content:
            room = self._room(on_content)
            found.append(ContentView(asked.said, self.means, on_content, room))
        return found

    def _room(self, detectors: Mapping[str, Detector]) -> int:
        """How many tokens all of the detectors read in one window."""
        limits = [detector.tap.limit for detector in detectors.values()]
        return min([self._window, *[limit.max_tokens for limit in limits if limit]])


def _obstacle(bundle: Bundle, detectors: Mapping[str, Detector]) -> str | None:
    """Why the bundle's graphs or detectors cannot go on where they stopped, or None."""
    model = bundle.manifest.model
    if model.kind == "encoder":
        return "an encoder reads each token anew with those behind it"
    if "decode" not in bundle.manifest.graphs:
        return "the bundle has no decode graph; export the model again"
    if model.dtype == "int8":
        return "int8 activations share one scale a run, so that scores depend on the chunks"
    for name, detector in detectors.items():
        tap = detector.tap
        if tap.view not in _STREAMED or tap.pooling not in KINDS:
            return f"{name} reads the {tap.pooling} of the {tap.view}, which cannot be continued"
    return None
