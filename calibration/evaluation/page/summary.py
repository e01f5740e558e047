"""The figures at the top of the page, and what they mean in sentences."""

from collections.abc import Iterator

from layerguard.calibration.evaluation.analysis import Analysis
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.page.formats import per_cent, plural
from layerguard.calibration.evaluation.ranking import GUARD
from layerguard.calibration.evaluation.rates import Rate
from layerguard.calibration.evaluation.scored_rows import label_array
from layerguard.calibration.report.page import Fact, Paragraph, Part, Section


def summary(evaluation: Evaluation, analysis: Analysis) -> Section:
    """The section."""
    parts: list[Part] = [*_facts(evaluation, analysis)]
    parts += map(Paragraph, _sentences(evaluation, analysis))
    return Section("Summary", parts)


def _facts(evaluation: Evaluation, analysis: Analysis) -> Iterator[Fact]:
    total, rule = analysis.total, evaluation.guard
    target = "none is promised" if rule.target_fpr is None else f"{100 * rule.target_fpr:g} %"
    yield Fact("Target of false alarms", target, _promise(evaluation))
    yield _rate_fact("Realised false alarms", total.false_alarms, "clean row")
    yield _rate_fact("Detection", total.detection, "harmful row")
    for ranking in analysis.rankings[:1]:
        interval = ranking.auroc_interval
        note = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "no errors of order"
        yield Fact(f"AUROC of {ranking.method}", f"{ranking.auroc:.3f}", note)
    harmful = int(label_array(evaluation.rows).sum())
    yield Fact("Rows", f"{len(evaluation.rows):,}", f"{harmful:,} of them harmful")


def _rate_fact(name: str, rate: Rate | None, noun: str) -> Fact:
    if rate is None:
        return Fact(name, "-", f"there is no {noun}")
    note = (
        f"{per_cent(rate.low)} to {per_cent(rate.high)}; {rate.flagged:,} of {plural(rate.n, noun)}"
    )
    return Fact(name, per_cent(rate.share), note)


def _promise(evaluation: Evaluation) -> str:
    rule = evaluation.guard
    if rule.fpr_interval is None:
        return "a published threshold decides, or the bundle has no decision"
    low, high = rule.fpr_interval
    return f"{per_cent(low)} to {per_cent(high)}; {plural(rule.calibration_rows, 'clean text')}"


def _sentences(evaluation: Evaluation, analysis: Analysis) -> Iterator[str]:
    rule = evaluation.guard
    policy = {
        "any": "A row is flagged if one of the deciding detectors flags it.",
        "all": "A row is flagged if all deciding detectors flag it.",
    }.get(rule.policy, f"{rule.policy} decides alone.")
    shadow = f" In shadow, without a vote: {', '.join(rule.shadow)}." if rule.shadow else ""
    yield (
        f"Bundle {evaluation.bundle_id} of model {rule.model}. Deciding: "
        f"{', '.join(rule.deciding)}. {policy}{shadow}"
    )
    rate, target = analysis.total.false_alarms, rule.target_fpr
    if rate is not None and target is not None:
        yield _verdict(rate, target)
    yield (
        "Intervals are 95 %: of shares those of Clopper and Pearson, of AUROC that of DeLong on "
        "the logit scale. They count rows as independent draws from one source of traffic. They "
        "do not cover traffic that these rows do not hold."
    )
    if not analysis.rankings:
        yield (
            "The rows have one label only, so there is no ROC curve and no comparison of methods."
            if evaluation.rows
            else "No row could be read."
        )
    elif analysis.rankings[0].method != GUARD:
        yield (
            "The guard has no p-values, because it promises no rate. It has an operating point, "
            "and no curve."
        )


def _verdict(rate: Rate, target: float) -> str:
    """Whether the interval of the realised share holds the target."""
    if rate.low > target:
        return (
            f"False alarms are above the target: even the lower end of the interval, "
            f"{per_cent(rate.low)}, exceeds {100 * target:g} %. The rows differ from the "
            "calibration rows. The sections by source and length show where; rows like these in "
            "--clean of layerguard calibrate, or layerguard recalibrate, change it."
        )
    if rate.high < target:
        return (
            f"False alarms are below the target: even the upper end of the interval, "
            f"{per_cent(rate.high)}, is less than {100 * target:g} %."
        )
    return f"False alarms are compatible with the target of {100 * target:g} %."
