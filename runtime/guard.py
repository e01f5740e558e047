"""The guard: a bundle, its graph and its detectors, answering with one verdict."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.binding import bind_detectors, worst_readings
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.canaries import replay_canaries
from layerguard.runtime.bundle.files import changed
from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.load import steadily
from layerguard.runtime.bundle.signing import load_verified
from layerguard.runtime.decision.verdicts import Verdicts
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.generation.guarded import guarded, settled
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.kernels import gathered
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device, Weights
from layerguard.runtime.streaming.opening import Opener
from layerguard.runtime.streaming.stream import DEFAULT_STRIDE, Judge, Stream
from layerguard.runtime.text.request import Message, Request, check_text, request
from layerguard.runtime.types import Array, Verdict


class Guard:
    """Reads a text through the exported model and says whether something is wrong with it.

    One guard serves many threads. Make it with ``Guard.load``.

    Attributes:
        bundle: what it serves.
        backbone: the exported graph.
        streams: what its streams share.
        decision: how the detectors' readings become one decision.
        monitor: the flags of its traffic against the target; every text that was checked counts.
    """

    def __init__(
        self, bundle: Bundle, backbone: Backbone, detectors: Mapping[str, Detector]
    ) -> None:
        self.bundle = bundle
        self.backbone = backbone
        self._detectors = dict(detectors)
        self._taps = {detector.tap for detector in self._detectors.values()}
        self.streams = Opener(bundle, backbone.reader, backbone.session, self._detectors)
        self._verdicts = Verdicts(bundle)
        self.decision, self.monitor = self._verdicts.decision, self._verdicts.monitor
        self._verify: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what to load: in the other process the bundle is opened and verified anew.

        Its monitor begins anew there. Unpickling raises what ``load`` raises, and BundleError where
        the folder holds another bundle by then.
        """
        session = self.backbone.session
        arguments = {
            "device": session.device,
            "threads": session.threads,
            "verify": self._verify,
            "weights": "packed" if session.weights is None else "mapped",
        }
        where = str(self.bundle.path.absolute())
        return _loaded_again, (type(self), where, arguments, self.bundle.id)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: Device = "cpu",
        threads: int = 0,
        verify: str | Path | None = None,
        weights: Weights = "packed",
    ) -> "Guard":
        """Load, verify and try out a bundle.

        Args:
            path: the bundle's folder; or, where there is none, the name of an installed bundle.
            device: ``cpu`` or ``cuda``; never a silent CPU.
            threads: ONNX Runtime's threads within one operator; 0 lets it choose.
            verify: file with a public key; a bundle that was not signed with its private key is
                refused before anything of it is parsed. Needs ``layerguard[sign]``.
            weights: ``packed``: each graph holds a copy of its own, laid out for speed; ``mapped``:
                all graphs, and all processes on the machine, read the one file in memory. That
                needs less memory and a fraction of the time to load. A check takes longer, the more
                so the shorter its text; a streamed token takes about as long. The measurements are
                those that tests/bench/loading.py prints.

        Raises:
            BundleError: the bundle has faults, is not calibrated, a canary gives another score, or
                the signature does not verify.
            InputError: ``verify`` is no key, or another argument is wrong.
            MachineError: onnxruntime or model-signing is missing, or the device does not engage.
        """
        folder = find_bundle(path)

        def load_once() -> Guard:
            bundle = Bundle.load(folder) if verify is None else load_verified(folder, verify)
            if not bundle.manifest.detectors:
                fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
                raise BundleError(folder, [fault])
            backbone = Backbone(bundle, device, threads, weights)
            guard = cls(bundle, backbone, bind_detectors(bundle))
            replay_canaries(bundle, guard.check)
            guard.monitor.reset()
            faults = changed(folder, bundle.manifest.files) if verify is not None else []
            if faults:  # after they were verified, and maybe before they were read again
                raise BundleError(folder, faults)
            guard._verify = str(Path(verify).absolute()) if verify is not None else None
            return guard

        return steadily(folder, load_once)

    def check(
        self,
        text: str | None = None,
        *,
        prompt: str | None = None,
        response: str | None = None,
        messages: Sequence[Message] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        domain: str | None = None,
    ) -> Verdict:
        """The verdict on one text, prompt (with or without its response), or chat.

        ``domain`` names the kind of traffic; where the bundle has no thresholds for it, those of
        all traffic decide.

        Raises:
            InputError: none or several of text, prompt and messages were given, or one is not of
                the right type.
        """
        one = request(text, prompt=prompt, response=response, messages=messages, tools=tools)
        _check_domain(domain)
        return self.check_requests([one], [domain])[0]

    def check_batch(self, texts: Sequence[str | Mapping[str, Any]]) -> list[Verdict]:
        """The verdicts on many texts; a mapping holds the keyword arguments of ``check``.

        Raises:
            InputError: a text is wrong; the message gives its index.
        """
        if isinstance(texts, (str, bytes, Mapping)):
            raise InputError(f"texts: found one {type(texts).__name__}; expected a list of texts")
        requests, domains = [], []
        for index, item in enumerate(texts):
            arguments = dict(item) if isinstance(item, Mapping) else {"text": item}
            domains.append(arguments.pop("domain", None))
            try:
                _check_domain(domains[-1])
                requests.append(request(**arguments))
            except (InputError, TypeError) as error:
                raise InputError(f"item {index}: {error}") from error
        return self.check_requests(requests, domains)

    def stream(
        self,
        text: str | None = None,
        *,
        prompt: str | None = None,
        response: str | None = None,
        messages: Sequence[Message] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        domain: str | None = None,
        stride: int = DEFAULT_STRIDE,
    ) -> Stream:
        """A stream: the verdict on a request whose answer is still being written; see ``Stream``.

        The arguments are those of ``check``; ``response``, or a last turn of the assistant, is the
        answer so far. ``stride`` matters where the text cannot be read token by token (encoders,
        bundles without a decode graph, texts beyond the window): at most so many tokens are unread.

        Raises:
            InputError: as ``check``; or the stride is not at least 1.
        """
        one = request(text, prompt=prompt, response=response, messages=messages, tools=tools)
        return Stream(self.streams, one, self._judge(domain), stride)

    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_new_tokens: int = 256,
        on_flag: OnFlag = "abstain",
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        domain: str | None = None,
    ) -> Iterator[Event]:
        """Let the bundle's model answer, and judge the prompt and every token of the answer.

        LCF judges the end of the prompt, WeightWatch and SIREN all that was read so far. The texts
        of the events together are what may be shown; see ``Event`` and ``OnFlag``.

        Args:
            prompt: what is asked; or ``messages``, with ``tools``, as ``check`` takes them.
            messages: a chat that ends before the answer.
            tools: what the chat template is told of tools.
            max_new_tokens: the most tokens that are made; the bundle's window is another limit.
            on_flag: ``abstain``: nothing of a flagged answer leaves, so nothing leaves before its
                end. ``steer``: what WeightWatch finds is taken out of the states; an answer that
                another detector flags ends there. ``log``: it goes on.
            temperature: see ``Sampler``, as ``top_k``, ``top_p`` and ``seed``; 0 is greedy.
            top_k: draw among the k likeliest tokens; 0 is all.
            top_p: draw among the fewest likeliest tokens that hold this share.
            seed: of the draws.
            stop: texts that end the answer and are left out.
            domain: as ``check``.

        Raises:
            InputError: an argument is wrong, here; or the bundle cannot generate, or the prompt is
                longer than its window, when the first event is asked for.
        """
        one = request(prompt=prompt, messages=messages, tools=tools)
        if messages and messages[-1]["role"] == "assistant":
            raise InputError("messages: found an answer at the end; expected a chat before it")
        settings = settled(
            self.bundle.manifest.text,
            self.streams,
            max_new_tokens=max_new_tokens,
            on_flag=on_flag,
            sampler=Sampler(temperature, top_k, top_p, seed),
            stop=stop,
        )
        return guarded(self.streams, self._judge(domain), one, settings)

    def _judge(self, domain: str | None) -> Judge:
        """What a growing text is judged with; only its last verdict is counted."""
        _check_domain(domain)
        return Judge(
            assemble=partial(self._verdicts.give, truncated=False, domain=domain, counted=False),
            check=lambda whole: self.check_requests([whole], [domain], counted=False)[0],
            count=lambda last: self._verdicts.count(flagged=last.flagged, domain=last.domain),
        )

    def check_requests(
        self,
        requests: Sequence[Request],
        domains: Sequence[str | None] | None = None,
        *,
        counted: bool = True,
    ) -> list[Verdict]:
        """The verdicts on requests already made, such as rows of a file, and their domains.

        They are ``counted`` by the monitor, or not, as parts of texts that are still being written.
        """
        if not requests:
            return []
        start = time.perf_counter()
        pooled = self.backbone.read(requests, self._taps)
        scoring = time.perf_counter()
        readings = {name: worst_readings(d, pooled) for name, d in self._detectors.items()}
        done = time.perf_counter()
        timings = {
            **pooled.timings_ms,
            "score": (done - scoring) * 1e3,
            "total": (done - start) * 1e3,
        }
        return [
            self._verdicts.give(
                {name: found[i] for name, found in readings.items()},
                timings,
                tokens=pooled.tokens[i],
                truncated=pooled.truncated[i],
                domain=domains[i] if domains else None,
                counted=counted,
            )
            for i in range(len(requests))
        ]

    def score_states(
        self,
        states: Any,
        mask: Array | None = None,
        roles: Array | None = None,
        domain: str | None = None,
    ) -> Verdict:
        """The verdict on states that another engine computed, read where they lie.

        Args:
            states: L + 1 arrays [tokens, hidden], or one array [L + 1, tokens, hidden]; float32,
                float16 or bfloat16; before the final norm (see ``layerguard.runtime.types``). An
                array is numpy's, or anything in host memory with ``__dlpack__`` (bfloat16 too) or
                ``__array_interface__``. ``layerguard.runtime.engines`` brings what engines give
                into this form. Rows may have any stride, also a negative one; the elements of a
                row follow each other.
            mask: [tokens], true where a token counts.
            roles: [tokens], 0 system, 1 user, 2 assistant, 3 tool: WeightWatch has a range for
                each. Without them every token is the user's.
            domain: the kind of traffic, as in ``check``.

        Raises:
            InputError: a shape, dtype or layout is wrong, states are in an accelerator's memory, or
                a detector of the bundle reads the state after the final norm, which these states do
                not have.
        """
        start = time.perf_counter()
        arrays = gathered(states)
        tokens, width = arrays[0].shape[0], arrays[0].shape[-1]
        model = self.bundle.manifest.model
        if (len(arrays), width) != (model.layers + 1, model.width):
            raise InputError(
                f"states: found {len(arrays)} of width {width}; expected {model.layers + 1} of "
                f"width {model.width}: give the states of {model.id}"
            )
        if roles is not None and np.shape(roles) != (tokens,):
            raise InputError(
                f"roles: found shape {np.shape(roles)}; expected ({tokens},), one entry a token"
            )
        normed = [n for n, d in self._detectors.items() if d.tap.semantics == "hf"]
        if normed:
            raise InputError(
                f"{', '.join(normed)} read the state after the final norm, which states from "
                "another engine do not carry; check the text instead"
            )
        readings = {name: d.score(arrays, mask, roles) for name, d in self._detectors.items()}
        elapsed = (time.perf_counter() - start) * 1e3
        counted = tokens if mask is None else int(np.count_nonzero(mask))
        timings = {"score": elapsed, "total": elapsed}
        return self._verdicts.give(
            readings, timings, tokens=counted, truncated=False, domain=domain
        )


def _loaded_again(
    kind: type[Guard], path: str, arguments: Mapping[str, Any], bundle_id: str
) -> Guard:
    """The guard that was pickled.

    Raises:
        BundleError: the bundle is another one by now; or as ``Guard.load``, as all other errors.
    """
    guard = kind.load(path, **arguments)
    if guard.bundle.id != bundle_id:
        fault = (
            f"its id is {guard.bundle.id}; the guard was pickled with {bundle_id}: load the guard "
            "from this folder and pickle it again"
        )
        raise BundleError(path, [fault])
    return guard


def _check_domain(domain: Any) -> None:
    if domain is not None:
        check_text("domain", domain)
