"""The resources that all streams of one guard share, and the views that a request is read in."""

from collections.abc import Mapping
from threading import Lock

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import added_outputs
from layerguard.runtime.detectors import Detector
from layerguard.runtime.model.forking import renew_after_fork
from layerguard.runtime.model.session import Session
from layerguard.runtime.streaming.decode_graph import DecodeGraph
from layerguard.runtime.streaming.growing_request import GrowingRequest
from layerguard.runtime.streaming.pools import KINDS
from layerguard.runtime.streaming.views import (
    ContentView,
    ConversationView,
    PromptTokens,
    ViewResources,
)
from layerguard.runtime.text.cuts import is_cuttable
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import ADDED, Array, View

Views = list[ContentView | ConversationView]

_STREAMED: tuple[View, ...] = ("prompt", "conversation", "content")


class ViewFactory:
    """Creates the views of streams. Thread-safe; opens the decode graph on first use.

    Attributes:
        blocks: number of blocks of the exported model.
        rescoring: why this bundle cannot be read token by token; None if it can.
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
        self.rescoring = _rescoring(bundle, detectors)
        self._bundle, self._session = bundle, session
        self._window = bundle.manifest.text.max_tokens
        self._resources: ViewResources | None = None
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def resources(self) -> ViewResources:
        """The decode graph and the tokenizer.

        Raises:
            InputError: the bundle has no decode graph.
            BundleError: the decode graph cannot be opened, or it changed since the guard was
                loaded.
        """
        with self._lock:
            if self._resources is None:
                score = self._session
                graph = DecodeGraph(
                    self._bundle,
                    score.device,
                    score.threads,
                    score.weights,
                    added=any(one.tap.pooling == ADDED for one in self.detectors.values()),
                )
                self._resources = ViewResources(
                    decode_graph=graph,
                    reader=self.reader,
                    cuttable=is_cuttable(self.reader.tokenizer),
                    padding=self._bundle.manifest.text.pad_token_id,
                )
        return self._resources

    def renew(self) -> None:
        """Replace the lock in a forked process: a thread of the parent may have held it."""
        self._lock = Lock()

    def views(
        self, growing: GrowingRequest, *, want_logits: bool = False, steering: Array | None = None
    ) -> Views | None:
        """The views that the detectors need, with the prompt already read.

        With ``want_logits`` the first view is the conversation, even if no detector reads it.

        Returns:
            The views, or None if the prompt is longer than a window.
        """
        by_view: dict[View, dict[str, Detector]] = {view: {} for view in _STREAMED}
        for name, detector in self.detectors.items():
            by_view[detector.tap.view][name] = detector
        at_prompt, at_answer, on_content = by_view.values()
        views: Views = []
        if at_prompt or at_answer or want_logits:
            prompt = self.reader.read(growing.prompt_part, {"conversation"})["conversation"]
            budget = self._token_budget({**at_prompt, **at_answer})
            if len(prompt.windows) > 1 or prompt.tokens > budget:
                return None
            views.append(
                ConversationView(
                    PromptTokens(prompt.windows[0], prompt.roles[0], growing.earlier_answer),
                    self.resources,
                    at_prompt,
                    at_answer,
                    self._token_budget(at_answer),
                    want_logits=want_logits,
                    steering=steering,
                )
            )
        if on_content:
            budget = self._token_budget(on_content)
            views.append(ContentView(growing.earlier_text, self.resources, on_content, budget))
            for text in self.reader.contents(growing.request)[1:]:
                views.append(ContentView(text, self.resources, on_content, budget, grows=False))
        return views

    def _token_budget(self, detectors: Mapping[str, Detector]) -> int:
        """The number of tokens that every one of the detectors reads in one window."""
        budgets = [detector.tap.budget for detector in detectors.values()]
        return min([self._window, *[budget.max_tokens for budget in budgets if budget]])


def _rescoring(bundle: Bundle, detectors: Mapping[str, Detector]) -> str | None:
    """Why the bundle's graphs or detectors cannot continue from a cache; None if they can."""
    model = bundle.manifest.model
    if model.kind == "encoder":
        return "an encoder recomputes every token when text is added"
    if "decode" not in bundle.manifest.graphs:
        return "the bundle has no decode graph; export the model again"
    if model.dtype == "int8":
        return "int8 activations share one scale per run, so scores would depend on the chunks"
    for name, detector in detectors.items():
        tap = detector.tap
        if tap.view not in _STREAMED or tap.pooling not in KINDS:
            return f"{name} reads the {tap.pooling} of the {tap.view}, which cannot be continued"
        if tap.pooling == ADDED and _added("decode", bundle) != _added("score", bundle):
            return f"{name} reads what tuning adds, which the decode graph does not give"
    return None


def _added(graph: str, bundle: Bundle) -> list[tuple[str, int]]:
    """The matrices of which a graph gives what tuning adds."""
    return [(card.kind, card.layer) for card in added_outputs(bundle.manifest.graphs[graph])]
