"""The forms in which applications hand texts to a model.

A form takes a text with a marked passage, and gives it back in another shape: the same sentences
(``excerpt``: some of them) with other words around them, and the passage marked where it now is.
What surrounds the text does not depend on the passage, so no form says whether the passage is an
injection.
"""

from collections.abc import Callable
from html import escape

from layerguard.calibration.rows.made_up import Rng, address, date, name, topic
from layerguard.calibration.rows.marked import Marked
from layerguard.calibration.rows.records import excerpt, record, records

Form = Callable[[Marked, Rng], Marked]


def plain(marked: Marked, _: Rng) -> Marked:
    """The text as it is."""
    return marked


def mail(marked: Marked, rng: Rng) -> Marked:
    """An e-mail with its headers, and often with a greeting."""
    sender, receiver = name(rng), name(rng)
    head = [
        f"From: {sender} <{address(sender, rng)}>",
        f"To: {receiver} <{address(receiver, rng)}>",
        f"Date: {date(rng)}",
        f"Subject: {topic(rng).capitalize()}",
    ]
    greeting = f"Hi {receiver.split()[0]},\n\n" if rng.integers(2) else ""
    end = f"\n\nBest regards,\n{sender}" if rng.integers(2) else ""
    top = "\n".join(head) + "\n\n" + greeting
    return Marked(top + marked.before, marked.words, marked.after + end)


def html(marked: Marked, rng: Rng) -> Marked:
    """A part of a web page: the passage is in the paragraph, or is one of its own."""
    tag, kind = ("article", "div", "section")[int(rng.integers(3))], topic(rng)
    number, day, writer = int(rng.integers(1, 5000)), date(rng), name(rng)
    top = (
        f'<{tag} id="{kind}-{number}">\n<h2>{kind.capitalize()}</h2>\n'
        f'<p class="meta">{writer}, {day}</p>\n<p>'
    )
    before, words, after = (
        escape(part, quote=False)
        for part in (marked.before.lstrip(), marked.words, marked.after.rstrip())
    )
    if rng.integers(2):
        before = before and before.rstrip() + "</p>\n<p>"
        after = after and "</p>\n<p>" + after.lstrip()
    return Marked(top + before, words, f"{after}</p>\n</{tag}>")


def markdown(marked: Marked, rng: Rng) -> Marked:
    """Notes with a heading and some lines of facts: the passage is in them, or is a list's item."""
    top = (
        f"# {topic(rng).capitalize()}\n\n- Author: {name(rng)}\n- Date: {date(rng)}\n"
        f"- Source: https://www.{topic(rng)}.example\n\n"
    )
    before, after = marked.before, marked.after
    if rng.integers(2):
        before = (before and before.rstrip() + "\n\n") + "- "
        after = after and "\n- " + after.lstrip()
    return Marked(top + before, marked.words, after)


FORMS: tuple[Form, ...] = (
    plain, record, plain, mail, plain, records, plain, html, plain, excerpt, plain, markdown,
)  # fmt: skip
"""In turn: half of the texts stay as they are, and a quarter are results of tools."""
