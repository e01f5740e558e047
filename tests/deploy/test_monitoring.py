"""Alerts and dashboard: they name metrics that exist, and alerts fire when they should."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerguard.runtime.decision.betting import Bets
from layerguard.runtime.server.config import Config, GuardConfig, SchedulerConfig
from layerguard.runtime.server.errors import DeadlineError
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.request import Request
from tests.deploy.tools import DEPLOY, ROOT, accepts, tool
from tests.tiny import make_bundle

_RULES = DEPLOY / "prometheus" / "rules.yml"
_DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
_PROMTOOL = ("promtool", "Debian's package prometheus")


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return panels


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _alerts())
    yield from (target["expr"] for panel in _panels() for target in panel["targets"])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of each sample of ``/metrics``, after a check and a refusal."""
    folder = make_bundle(tmp_path_factory.mktemp("metrics") / "bundle")
    service = Service(
        Config({"main": str(folder)}, guard=GuardConfig(threads=1), scheduler=SchedulerConfig())
    )

    async def use() -> str:
        await service.reload()
        await service.check([Request("the garden")], contract="native")
        with pytest.raises(DeadlineError):
            await service.check([Request("a")], contract="native", deadline_s=1e-9)
        service.metrics.compared("main", "candidate", "same", 1)
        service.guards["main"].traffic.sources["s"] = _Source()  # type: ignore[assignment]
        text = service.metrics.text().decode()
        await service.drain()
        return text

    found: dict[str, set[str]] = {}
    for line in asyncio.run(use()).splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? ", line)
        if match and not line.startswith("#"):
            labels = re.findall(r"(\w+)=\"", match[2] or "")
            found.setdefault(match[1], set()).update(labels)
    return found


class _Source:
    bets, drifting = Bets(1), False


def test_every_metric_that_is_named_exists(samples: dict[str, set[str]]) -> None:
    """In the alerts, the dashboard and the autoscaler, as ``/metrics`` prints it."""
    scaler = (DEPLOY / "kubernetes" / "autoscaler.yaml").read_text(encoding="utf-8")
    named = {
        name for text in (*_expressions(), scaler) for name in re.findall(r"\blayerguard_\w+", text)
    }
    assert named
    assert named - samples.keys() == set()


def test_every_metric_is_on_the_dashboard(samples: dict[str, set[str]]) -> None:
    """What is counted can be seen."""
    text = " ".join(target["expr"] for panel in _panels() for target in panel["targets"])
    parts = re.compile(r"_(bucket|sum|count|created)$")
    metrics = {parts.sub("", name) for name in samples}
    assert {name for name in metrics if parts.sub("", name) not in text} == set()


def test_every_label_that_is_named_exists(samples: dict[str, set[str]]) -> None:
    """Those of the metrics, and those that Prometheus adds."""
    known = set().union(*samples.values()) | {"job", "instance"}
    for expression in _expressions():
        named = set(re.findall(r"[{,](\w+)(?:=|!=|=~)\"", expression))
        for group in re.findall(r"by \(([^)]*)\)", expression):
            named |= {name.strip() for name in group.split(",")}
        assert named <= known, expression


def test_every_alert_leads_to_its_part_of_the_runbook() -> None:
    """And every part of the runbook is what an alert leads to."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    anchors = set(re.findall(r"^## .*\{#([\w-]+)\}$", page, re.MULTILINE))
    linked = {rule["annotations"]["runbook_url"] for rule in _alerts()}
    assert linked == {f"docs/runbook.md#{anchor}" for anchor in anchors}
    for rule in _alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"`{rule['alert']}`" in page


def test_panels_do_not_overlap() -> None:
    """Each has its own number and place."""
    cells = [
        (x, y)
        for panel in _panels()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in _panels()}) == len(_panels())


def test_prometheus_accepts_its_configuration_and_the_alerts_fire() -> None:
    """As promtool replays them."""
    promtool = tool(*_PROMTOOL)
    accepts(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    accepts(promtool, "check", "rules", _RULES)
    accepts(promtool, "test", "rules", DEPLOY / "prometheus" / "rules_test.yml")


def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    """With Grafana's variables filled in."""
    promtool = tool(*_PROMTOOL)
    expressions = [
        target["expr"].replace("$__rate_interval", "5m").replace("$job", "layerguard")
        for panel in _panels()
        for target in panel["targets"]
    ]
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    accepts(promtool, "check", "rules", path)
