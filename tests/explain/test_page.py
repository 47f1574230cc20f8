"""The page: what it says, and that no text becomes a tag."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from batch_nlp.explain.page import Message, Sum, explanations_html

VILE = "<script>alert(1)</script>\"'&amp;{0}"


class Reader(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def message(**other: object) -> Message:
    sums = [
        Sum("Features", [("words", 0.5, [("good", 1.0, 0.7), ("so", 2.0, -0.2)])], 0.25, 0.75),
    ]
    given = {
        "id": "m1",
        "label": "positive",
        "probabilities": [0.1, 0.2, 0.7],
        "pieces": [("So", -0.2), (" ", None), ("good", 0.4), ("!", None)],
        "notes": ["A note."],
        "sums": sums,
    }
    return Message(**{**given, **other})  # type: ignore[arg-type]


def test_what_a_reader_finds() -> None:
    page = read(explanations_html([message(), message(id="m2")], model="sentiment 7"))
    assert [tag for tag, _ in page.tags].count("section") == 2
    for said in (
        "2 messages of model sentiment 7",
        "m1: positive",
        "m2: positive",
        "negative 10.0%, neutral 20.0%, positive 70.0%",
        "So good!",
        "A note.",
        "Base +0.250, all of these +0.500, margin +0.750.",
    ):
        assert said in page.text
    assert "1 message of" in read(explanations_html([message()], model="x")).text


def test_words_are_shaded_by_what_they_add() -> None:
    page = read(explanations_html([message()], model="x"))
    shades = [
        (given["class"], given["style"], given["title"])
        for tag, given in page.tags
        if tag == "span" and "title" in given
    ]
    assert shades == [("against", "--depth: 0.30", "-0.200"), ("for", "--depth: 0.60", "+0.400")]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], [("bar plus", "width: 100.0%"), ("bar minus", "width: 28.6%")]),
        (
            [("other", -1.0, [])],
            [
                ("bar plus", "width: 50.0%"),
                ("bar plus", "width: 70.0%"),
                ("bar minus", "width: 20.0%"),
                ("bar minus", "width: 100.0%"),
            ],
        ),
    ],
)
def test_bars_are_as_long_as_what_is_added(
    others: list[tuple[str, float, list[tuple[str, float, float]]]],
    expected: list[tuple[str, str]],
) -> None:
    groups = [("words", 0.5, [("good", 1.0, 0.7), ("so", 2.0, -0.2)]), *others]
    page = read(explanations_html([message(sums=[Sum("All", groups, 0.0, 0.5)])], model="x"))
    bars = [
        (given["class"], given["style"])
        for tag, given in page.tags
        if tag == "span" and str(given["class"]).startswith("bar")
    ]
    assert bars == expected


@pytest.mark.parametrize(
    "vile",
    [
        {"id": VILE},
        {"label": VILE},
        {"pieces": [(VILE, 0.1)]},
        {"pieces": [(VILE, None)]},
        {"notes": [VILE]},
        {"sums": [Sum(VILE, [("a", 1.0, [])], 0.0, 1.0)]},
        {"sums": [Sum("a", [(VILE, 1.0, [])], 0.0, 1.0)]},
        {"sums": [Sum("a", [("a", 1.0, [(VILE, 0.0, 1.0)])], 0.0, 1.0)]},
    ],
)
def test_no_text_becomes_a_tag(vile: dict[str, object]) -> None:
    source = explanations_html([message(**vile)], model="x")
    page = read(source)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in source
    assert VILE in page.text


def test_the_model_is_escaped_too() -> None:
    assert VILE in read(explanations_html([], model=VILE)).text


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = read(explanations_html([message()], model="x"))
    assert not {"src", "href", "onclick"} & {name for _, given in page.tags for name in given}
    assert "url(" not in page.text


def test_a_message_that_nothing_is_known_of() -> None:
    sums = [Sum("Words", [("0 known", 0.0, [])], -0.5, -0.5)]
    page = read(explanations_html([message(pieces=[], notes=[], sums=sums)], model="x"))
    assert "Base -0.500, all of these +0.000, margin -0.500." in page.text
