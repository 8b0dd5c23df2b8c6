import re
from html.parser import HTMLParser

import pytest
from tests.unit.training.made_reports import classified, epochs, estimated, report_of

from yunmo.core.recipe import METRICS
from yunmo.training.report_html import PLOTTED_OUTPUTS, duration, render_html

HOSTILE = '<script>alert("1")</script>'
VOID = {"meta", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def hostile():
    issue = {
        "split": "train", "field": HOSTILE, "reason": HOSTILE, "action": HOSTILE, "count": 3, "rows": [HOSTILE]
    }  # fmt: skip
    values = classified(
        [HOSTILE, "{{ 7 * 7 }}", "' onload='alert(1)", "一只非常长的中文类别名称用来测试页面"], noise=2.0
    )
    return render_html(report_of({"label": values}, name=HOSTILE, cleaning={"issues": [issue]}))


def test_what_a_user_named_is_text_and_never_markup(hostile):
    page = Page(hostile)
    assert page.open == []
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "一只非常长的中文类别名称用来测试页面" in page.text


def test_the_page_loads_nothing(hostile):
    page = Page(hostile)
    assert not {"link", "script", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in {"src", "href", "xlink:href", "action"}]
    assert not re.search(r"https?:|url\(|@import", hostile)
    assert "default-src 'none'" in hostile


def test_a_classification_has_all_its_plots_and_tables():
    page = Page(render_html(report_of({"label": classified(["cat", "dog", "bird"])})))
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels == [
        "accuracy of the network and the baselines",
        "Loss by epoch",
        "Accuracy by epoch",
        "Confusion matrix",
        "Reliability diagram",
        "ROC curves",
    ]
    for text in ("Class by class", "What was chosen, and why", "as many as fit", "a note", "sha256:ab", "type: vector"):
        assert text in page.text
    assert "epoch 2: 80.0 %, kept" in page.text


def test_a_regression_has_all_its_plots():
    page = Page(render_html(report_of({"price": estimated()})))
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels[-2:] == ["Predicted against true numbers", "Residuals"]
    assert "Largest mistakes" in page.text


@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_report_is_a_page(rows):
    tests = {"label": classified("ab", rows=rows), "price": estimated(rows=rows)}
    page = Page(render_html(report_of(tests, history=[], with_baselines=False)))
    assert page.open == []
    assert "too few" in page.text


def test_numbers_that_are_all_alike_can_be_drawn():
    values = estimated(noise=0.0)
    assert Page(render_html(report_of({"price": values}, history=epochs([0.5, 0.5])))).open == []


def test_the_size_is_bounded():
    many = classified([f"class {'long ' * 40}{place}" for place in range(150)], rows=1500)
    thirty = classified([f"{place} {'long ' * 40}" for place in range(30)], rows=2500, noise=3.0)
    outputs = {"many": many} | {f"output {place}": thirty for place in range(PLOTTED_OUTPUTS + 2)}
    text = render_html(report_of(outputs, history=epochs([0.5] * 300)))
    assert len(text.encode()) < 1_000_000
    assert len(render_html(report_of({"label": thirty})).encode()) < 500_000
    assert len(render_html(report_of({"label": many})).encode()) < 200_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "under 0.1 s"), (0.44, "0.4 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7320, "2 h 2 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_texts_of_mistakes_and_words_are_shown_and_escaped():
    report = report_of({"label": classified("ab")})
    for entry in report["test"]["label"]["worst"]:
        entry["text"] = {"review": "<script>a dull film</script>"}
    report["baselines"]["label"]["linear"]["words"] = {"a": [{"word": "<b>dull", "weight": 1.25}]}
    page = Page(render_html(report))
    assert page.open == []
    assert "<script>a dull film</script>" in page.text
    assert "<b>dull" in page.text
    assert "Words that weigh most" in page.text


def test_folds_are_shown():
    report = report_of({"label": classified(["cat", "dog"])})
    metrics = {
        metric: {"mean": 0.625, "deviation": 0.0321, "values": [0.6, 0.65, None]} for metric in METRICS["category"]
    }
    report["cross_validation"] = {
        "method": "group", "column": HOSTILE, "folds": 3, "rows": [40, 41, 42], "outputs": {"label": metrics}
    }  # fmt: skip
    page = Page(render_html(report))
    assert page.open == []
    assert "script" not in page.tags
    assert "MeanDeviationFold 1Fold 2Fold 3" in page.text
    assert "62.5 %3.2 %60.0 %65.0 %–" in page.text
    assert f"(group by {HOSTILE})" in page.text
    assert "the 40, 41, 42 rows held out" in page.text
    assert "Cross-validation" not in Page(render_html(report_of({"label": classified(["cat", "dog"])}))).text
