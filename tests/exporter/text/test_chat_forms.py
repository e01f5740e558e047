"""Chat templates are tested before a model is traced, with the runtime's renderer."""

from pathlib import Path

import pytest

from layerguard.exporter import Options, export
from layerguard.exporter.command import report
from layerguard.exporter.text.chat_forms import refused_forms
from layerguard.runtime.errors import ExportError
from tests.exporter.models import save_model

_PLAIN = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"

_UNUSABLE = {
    "does not parse": ("{% for m in messages %}", "Unexpected end of template"),
    "unknown tag": ("{% conjure %}" + _PLAIN, "unknown tag 'conjure'"),
    "unknown filter": ("{{ messages | conjure }}", "No filter named 'conjure'"),
    "always raises": ("{{ raise_exception('not today') }}", "not today"),
    "needs a system turn": ("{{ messages[1].content }}", "no element 1"),
    "reads parts alone": (
        "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}",
        "its output lacks the user's text",
    ),
}


@pytest.mark.parametrize("case", _UNUSABLE)
def test_an_unusable_chat_template_is_refused_before_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """No graph is traced; the message has the reason and an alternative."""
    source, words = _UNUSABLE[case]
    model = save_model(tmp_path / "model", head=True, chat_template=source)
    traced: list[str] = []
    monkeypatch.setattr(
        "layerguard.exporter.pipeline.score_graph", lambda *_, **__: traced.append("score")
    )
    with pytest.raises(ExportError, match="single user turn") as caught:
        export(str(model), tmp_path / "bundle", Options())
    assert words in str(caught.value)
    assert "--template" in str(caught.value)
    assert not traced
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


_SELECTIVE = {
    "takes all": (_PLAIN, {}),
    "no system turn": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + _PLAIN,
        {"a system turn": "System role not supported"},
    ),
    "user and assistant alone": (
        "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
        "{{ raise_exception('only ' + loop.index | string) }}{% endif %}{% endfor %}" + _PLAIN,
        {"a system turn": "only 1", "a tool call and its result": "only 3"},
    ),
    "no tools": (
        "{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + _PLAIN,
        {"tools": "no tools", "a tool call and its result": "no tools"},
    ),
    "one turn": (
        "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}" + _PLAIN,
        {"a system turn": "one", "an earlier answer": "one", "a tool call and its result": "one"},
    ),
    "arguments of calls": (
        (
            "{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}"
            "{% for name, value in call.function.arguments | items %}{{ name }}{% endfor %}"
            "{% endfor %}{% endfor %}"
        ),
        {},
    ),
}


@pytest.mark.parametrize("case", _SELECTIVE)
def test_forms_that_a_template_refuses_are_listed(case: str) -> None:
    """Each with the error message of the template."""
    source, expected = _SELECTIVE[case]
    assert refused_forms(source, {}) == expected


def test_the_export_reports_what_the_template_refuses(tmp_path: Path) -> None:
    """A refused form is not an error; the report has a line for it."""
    source, _ = _SELECTIVE["no system turn"]
    model = save_model(tmp_path / "model", chat_template=source, head=True)
    exported = export(str(model), tmp_path / "bundle", Options(decode="no", layers=1))
    assert exported.manifest.text.rules_version == 3
    assert exported.refused == {"a system turn": "System role not supported"}
    line = "the chat template refuses a system turn: System role not supported"
    assert line in report(exported)


def test_a_text_template_needs_no_chat_template(tmp_path: Path) -> None:
    """A broken chat template is not tested if the bundle uses another template."""
    model = save_model(tmp_path / "model", chat_template="{% conjure %}", head=True)
    options = Options(decode="no", layers=1, template="ask: {prompt}")
    exported = export(str(model), tmp_path / "bundle", options)
    assert exported.manifest.text.template == "ask: {prompt}"
    assert exported.refused == {}
