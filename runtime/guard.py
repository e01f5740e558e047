"""The guard: runs a bundle's graph and detectors on a text and returns one verdict."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from layerguard.runtime.argument_checks import (
    check_choice,
    check_domain,
    check_keys,
    check_path,
    check_states,
)
from layerguard.runtime.asynchronous import in_thread, opened_in_thread
from layerguard.runtime.binding import bind_detectors, worst_readings
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.canaries import replay_canaries
from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.load import read_bundle
from layerguard.runtime.bundle.signing import read_verified
from layerguard.runtime.bundle.steady import steadily
from layerguard.runtime.decision.verdicts import Verdicts
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.generation.guarded import checked_settings, guarded_events
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.kernels import gathered
from layerguard.runtime.limits import Limits
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device, Weights
from layerguard.runtime.streaming.stream import DEFAULT_STRIDE, GuardCallbacks, Stream
from layerguard.runtime.streaming.view_factory import ViewFactory
from layerguard.runtime.text.request import Message, Request, request
from layerguard.runtime.trial import load_in_time
from layerguard.runtime.types import Array, OnUnfamiliar, OnUnread, Verdict, View


class Guard:
    """Runs the exported model on a text and decides whether to flag the text.

    A guard is thread-safe. Create it with ``Guard.load``.

    Attributes:
        bundle: the bundle that is served.
        backbone: the exported graph.
        streams: the factory of the streams' view readers.
        decision: combines the detectors' readings into one decision.
        monitor: compares the share of flagged texts with the target, for each ``domain`` that
            callers name.
        traffic: compares the p-values of checked texts with those of the clean texts, likewise.
    """

    def __init__(
        self,
        bundle: Bundle,
        backbone: Backbone,
        detectors: Mapping[str, Detector],
        on_unfamiliar: OnUnfamiliar | None = None,
        on_unread: OnUnread | None = None,
    ) -> None:
        self.bundle = bundle
        self.backbone = backbone
        self._detectors = dict(detectors)
        self._taps = {detector.tap for detector in self._detectors.values()}
        self.streams = ViewFactory(bundle, backbone.reader, backbone.session, self._detectors)
        self._views: set[View] = {tap.view for tap in self._taps}
        self._policies = {"on_unfamiliar": on_unfamiliar, "on_unread": on_unread}
        self._verdicts = Verdicts(bundle, on_unfamiliar, on_unread)
        self.decision, self.monitor = self._verdicts.decision, self._verdicts.monitor
        self.traffic = self._verdicts.traffic
        self._verify: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments of ``load``; unpickling loads and verifies the bundle again.

        The monitor starts empty. Unpickling raises the errors of ``load``, and BundleError if the
        folder now holds another bundle.
        """
        session = self.backbone.session
        arguments = {
            "device": session.device,
            "threads": session.threads,
            "verify": self._verify,
            "weights": "packed" if session.weights is None else "mapped",
            "limits": self.limits,
            **self._policies,
        }
        where = str(self.bundle.path.absolute())
        return _loaded_again, (type(self), where, arguments, self.bundle.id)

    @property
    def limits(self) -> Limits:
        """The largest request that the guard reads."""
        return self.backbone.reader.limits

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: Device = "cpu",
        threads: int = 0,
        verify: str | Path | None = None,
        weights: Weights = "packed",
        on_unfamiliar: OnUnfamiliar | None = None,
        on_unread: OnUnread | None = None,
        limits: Limits | None = None,
        timeout: float | None = None,
    ) -> "Guard":
        """Load and verify a bundle, and replay its canaries.

        Args:
            path: the bundle's folder; if there is no such folder, the name of an installed bundle.
            device: ``cpu`` or ``cuda``; there is no silent fallback to the CPU.
            threads: ONNX Runtime's threads within one operator; 0 lets it choose.
            verify: file with a public key. A bundle that was not signed with the matching private
                key is refused before it is parsed. Needs ``layerguard[sign]``.
            weights: ``packed``: each graph has its own copy, in a layout optimised for speed.
                ``mapped``: all graphs, and all processes on the machine, share the memory-mapped
                file. This needs less memory and loads in a fraction of the time. A check takes
                longer, above all of a short text; a streamed token takes about as long.
                tests/bench/loading.py prints the measurements.
            on_unfamiliar: what happens with a text that is unlike the calibration rows: ``allow``,
                ``flag`` or ``ask``; see ``Verdict.unfamiliar``. None: as the bundle says.
            on_unread: what happens with a request of which some part cannot be read, such as an
                image: ``flag``, ``allow`` or ``refuse``; see ``Verdict.unread``. None: as the
                bundle says, which is ``flag`` unless it was changed.
            limits: the largest request that is read; see ``Limits``. None: as the bundle says.
            timeout: seconds within which the bundle must load. It is then loaded in another process
                first, which is ended after that time. None: without a limit.

        Raises:
            BundleError: the bundle has faults, is not calibrated, a canary gives another score, the
                signature does not verify, or loading does not end within ``timeout``.
            InputError: ``verify`` is not a valid key, or another argument is wrong.
            MachineError: onnxruntime or model-signing is missing, or the device is unavailable.
        """
        check_path(path)
        folder = find_bundle(path)
        check_choice("on_unfamiliar", on_unfamiliar, get_args(OnUnfamiliar))
        check_choice("on_unread", on_unread, get_args(OnUnread))
        if limits is not None and not isinstance(limits, Limits):
            raise InputError(f"limits: found {type(limits).__name__}; expected Limits(...)")

        if timeout is not None:
            arguments = {
                "device": device,
                "threads": threads,
                "verify": None if verify is None else str(Path(verify).absolute()),
                "weights": weights,
            }
            load_in_time(folder, arguments, timeout)

        def load_once(place: Path) -> Guard:
            bundle = (
                read_bundle(place, folder)
                if verify is None
                else read_verified(place, folder, verify)
            )
            if not bundle.manifest.detectors:
                fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
                raise BundleError(folder, [fault])
            backbone = Backbone(bundle, device, threads, weights)
            guard = cls(bundle, backbone, bind_detectors(bundle), on_unfamiliar, on_unread)
            replay_canaries(bundle, partial(guard.check, counted=False))
            if limits is not None:  # the canaries were scored within the bundle's own
                backbone.reader.limits = limits
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
        counted: bool = True,
    ) -> Verdict:
        """The verdict on one text, prompt (with or without its response), or chat.

        ``domain`` names the kind of traffic. If the bundle has no thresholds for it, those of all
        traffic are used. ``counted`` is False for texts that are not traffic, such as those of
        health checks: the monitors then do not count them.

        Raises:
            InputError: not exactly one of text, prompt and messages was given, one has a wrong
                type, the request is beyond the guard's limits, or it has unread parts and such
                requests are refused.
        """
        one = self._request(text, prompt=prompt, response=response, messages=messages, tools=tools)
        check_domain(domain)
        return self.check_requests([one], [domain], counted=counted)[0]

    def check_batch(
        self, texts: Sequence[str | Mapping[str, Any]], *, counted: bool = True
    ) -> list[Verdict]:
        """The verdicts on many texts; a mapping holds the arguments of ``check`` but ``counted``.

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
                check_domain(domains[-1])
                check_keys(arguments)
                requests.append(self._request(**arguments))
            except InputError as error:
                raise InputError(f"item {index}: {error}") from error
        return self.check_requests(requests, domains, counted=counted)

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
        """A stream: verdicts on a request whose answer is still being generated; see ``Stream``.

        The arguments are those of ``check``; ``response``, or a last turn of the assistant, is the
        answer so far. ``stride`` is used if the text cannot be read token by token (encoders,
        bundles without a decode graph, texts beyond the window): the most tokens left unread.

        Raises:
            InputError: as ``check``; or the stride is not at least 1.
        """
        one = self._request(text, prompt=prompt, response=response, messages=messages, tools=tools)
        return Stream(self.streams, one, self._judge(domain, one), stride)

    acheck = in_thread(check)
    """``check`` for asyncio: ``await guard.acheck(...)``; see ``runtime/asynchronous.py``."""

    acheck_batch = in_thread(check_batch)
    """``check_batch`` for asyncio."""

    astream = opened_in_thread(stream)
    """``stream`` for asyncio: ``async with guard.astream(...)``; see ``AsyncStream``."""

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
        """Generate an answer with the bundle's model, and check the prompt and every token.

        LCF reads the end of the prompt; WeightWatch and SIREN read all tokens so far. The texts of
        all events together may be shown to the user; see ``Event`` and ``OnFlag``.

        Args:
            prompt: the user's text; or ``messages``, with ``tools``, as in ``check``.
            messages: a chat that ends before the answer.
            tools: tool descriptions for the chat template.
            max_new_tokens: maximum number of tokens to generate, within the bundle's window.
            on_flag: ``abstain``: no text of a flagged answer is returned, so text is returned only
                at the end. ``steer``: the directions that WeightWatch reports are removed from the
                states; if another detector flags the answer, it ends there. ``log``: continue.
            temperature: see ``Sampler``, as for ``top_k``, ``top_p`` and ``seed``; 0 is greedy.
            top_k: sample from the k most likely tokens; 0 means all.
            top_p: sample from the smallest set of most likely tokens with this total probability.
            seed: seed of the sampler.
            stop: texts that end the answer; they are not returned.
            domain: as in ``check``.

        Raises:
            InputError: an argument is wrong. When the first event is requested: the bundle cannot
                generate, or the prompt is longer than the window.
        """
        one = self._request(prompt=prompt, messages=messages, tools=tools)
        if messages and messages[-1]["role"] == "assistant":
            raise InputError("messages: found an answer at the end; expected a chat before it")
        settings = checked_settings(
            self.bundle.manifest.text,
            self.streams,
            max_new_tokens=max_new_tokens,
            on_flag=on_flag,
            sampler=Sampler(temperature, top_k, top_p, seed),
            stop=stop,
        )
        return guarded_events(self.streams, self._judge(domain, one), one, settings)

    def _request(self, text: str | None = None, **arguments: Any) -> Request:
        """The request of some arguments of ``check``, within the guard's limits."""
        return request(text, **arguments, limits=self.limits)

    def _judge(self, domain: str | None, one: Request) -> GuardCallbacks:
        """The callbacks of a stream of a request; the monitor counts only its last verdict."""
        check_domain(domain)
        unread = self.backbone.reader.unread(one, self._views)
        self._verdicts.check_unread(unread)
        return GuardCallbacks(
            assemble=partial(
                self._verdicts.give,
                truncated=one.is_cut,
                unread=unread,
                domain=domain,
                counted=False,
            ),
            check=lambda whole: self.check_requests([whole], [domain], counted=False)[0],
            count=lambda last: self._verdicts.count(last, domain),
        )

    def check_requests(
        self,
        requests: Sequence[Request],
        domains: Sequence[str | None] | None = None,
        *,
        counted: bool = True,
    ) -> list[Verdict]:
        """The verdicts on ``Request`` objects, such as rows of a file, with optional domains.

        ``counted`` is False if the monitor should not count them, for example for parts of texts
        that are still being generated.

        Raises:
            InputError: a request is beyond the guard's limits, has unread parts and such requests
                are refused, or the chat template refuses it.
        """
        if not requests:
            return []
        start = time.perf_counter()
        reader = self.backbone.reader
        requests = [one.within(self.limits) for one in requests]
        unread = [reader.unread(one, self._views) for one in requests]
        for parts in unread:
            self._verdicts.check_unread(parts)
        pooled = self.backbone.read(requests, self._taps)
        scoring = time.perf_counter()
        readings = {
            name: worst_readings(detector, pooled, requests, reader)
            for name, detector in self._detectors.items()
        }
        done = time.perf_counter()
        timings = {
            **pooled.timings_ms,
            "score": (done - scoring) * 1e3,
            "total": (done - start) * 1e3,
        }
        return [
            self._verdicts.give(
                {name: column[i] for name, column in readings.items()},
                timings,
                tokens=pooled.tokens[i],
                truncated=pooled.truncated[i],
                unread=unread[i],
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
        """The verdict on states that another engine computed; they are not copied.

        Args:
            states: L + 1 arrays [tokens, hidden], or one array [L + 1, tokens, hidden]; float32,
                float16 or bfloat16; before the final norm (see ``layerguard.runtime.types``). An
                array is a numpy array or any object in host memory with ``__dlpack__`` (bfloat16
                too) or ``__array_interface__``. ``layerguard.runtime.engines`` converts the outputs
                of engines. Rows may have any stride, also a negative one; the elements of a row
                must be contiguous.
            mask: [tokens], False where a token is ignored.
            roles: [tokens], 0 system, 1 user, 2 assistant, 3 tool: WeightWatch has a range for
                each. None: every token is the user's.
            domain: the kind of traffic, as in ``check``.

        Raises:
            InputError: a shape, dtype or layout is wrong, the states are in an accelerator's
                memory, or a detector of the bundle needs the state after the final norm.
        """
        start = time.perf_counter()
        arrays = gathered(states)
        normed = [n for n, d in self._detectors.items() if d.tap.semantics == "hf"]
        check_states(arrays, roles, self.bundle.manifest.model, normed)
        tokens = arrays[0].shape[0]
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
    """Load a pickled guard.

    Raises:
        BundleError: the folder now holds another bundle. Other errors are those of ``Guard.load``.
    """
    guard = kind.load(path, **arguments)
    if guard.bundle.id != bundle_id:
        fault = (
            f"its id is {guard.bundle.id}; the guard was pickled with {bundle_id}: load the guard "
            "from this folder and pickle it again"
        )
        raise BundleError(path, [fault])
    return guard
