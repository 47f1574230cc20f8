"""Pipelines as pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from batch_nlp.reporting.diagrams import pipeline_html

VOID = {"meta", "input", "br", "hr", "img", "link"}


class Outline(HTMLParser):
    """Checks that tags close in order, and keeps what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.parents: dict[str, set[str]] = {}
        self.text: dict[str, str] = {}
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.setdefault(tag, dict(attrs))
        self.parents.setdefault(tag, set()).update(self.open[-1:])
        if tag in {"link", "script", "img", "iframe"}:
            self.loaded += [str(value) for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:  # "<br />" ends what it begins
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


@pytest.fixture
def page(tmp_path: Path) -> str:
    pipeline = Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [("scale", StandardScaler(), ["n"]), ("words", TfidfVectorizer(), "text")]
                ),
            ),
            ("classify", LogisticRegression(C=0.125)),
        ]
    )
    path = tmp_path / "new" / "training_pipeline.html"
    pipeline_html(pipeline, "Training <1> & {more}", path)
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_a_whole_page(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert page.startswith("<!DOCTYPE html>\n")
    assert outline.open == []
    assert [outline.tags.count(tag) for tag in ("html", "head", "body", "title", "h1")] == [1] * 5
    assert outline.attributes["html"] == {"lang": "en"}
    assert outline.attributes["meta"] == {"charset": "utf-8"}
    assert outline.parents["style"] == {"head"}
    assert outline.text["title"] == "Training <1> & {more}"
    assert outline.text["h1"] == outline.text["title"]


def test_loads_nothing(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert "script" in outline.tags
    assert outline.loaded == []
    assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", page)


def test_shows_every_step_and_its_parameters(page: str) -> None:
    for name in ("ColumnTransformer", "StandardScaler", "TfidfVectorizer", "LogisticRegression"):
        assert name in page
    assert "0.125" in page
