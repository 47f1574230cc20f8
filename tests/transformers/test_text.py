"""Tables of texts: what cleaning leaves, and what is counted."""

from __future__ import annotations

import pandas as pd
import pytest

from batch_nlp.transformers import CleanText, TextStatistics, text


def clean(message: str, **parameters: object) -> str:
    rows = pd.DataFrame({"text": [message]})
    return CleanText(**parameters).transform(rows)["clean_text"].item()


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        ("plain", "plain"),
        ("a &amp; b &lt;3 &#39;c&#39;", "a & b <3 'c'"),
        ("a < b and c > d", "a < b and c > d"),
        ("<3 you", "<3 you"),
        ("I <heart> you", "I <heart> you"),
        ("one<br/>two<BR>three</p>", "one two three"),
        ('<a href="https://x.example">menu</a>', "menu"),
        ("&lt;br&gt;escaped", "escaped"),
        ("a<!-- hidden -->b<script>var x = '<b>';</script>c", "a b c"),
        ("non\xa0breaking\u3000wide", "non breaking wide"),
        ("bell\x07tab\tend\x00", "bell tab end"),
        ("zero\u200bwidth\ufeff so\u00adft", "zerowidth soft"),
        ("👩\u200d🍳 ❤\ufe0f", "👩\u200d🍳 ❤\ufe0f"),
        ("line\n\n  line", "line line"),
        ("See https://a.example/b?c=d, or WWW.B.example!", "See url , or url !"),
        ("(http://a.example)", "( url )"),
        ("awww. no address", "awww. no address"),
        ("Not good, don't GO!!! 😡", "Not good, don't GO!!! 😡"),
        ("\uff27\uff4f\uff4f\uff44 ﬁne …", "Good fine ..."),
        ("<br>", ""),
    ],
)
def test_clean_text(message: str, cleaned: str) -> None:
    assert clean(message) == cleaned


@pytest.mark.parametrize(
    ("opening", "begins"),
    [
        ("<!--", "<!--<!--"),
        ("<script ", "<script <script"),
        ("<b ", "<b <b"),
        ("&#", "&#&#"),
        ("http://.", "url"),
        ("www. ", "www. www."),
    ],
)
def test_what_never_closes_takes_no_time(opening: str, begins: str) -> None:
    assert clean(opening * 30_000).startswith(begins)


@pytest.mark.parametrize(
    ("parameters", "cleaned"),
    [
        ({"strip_html": False}, "A &amp; <b>fi</b> url é"),
        ({"unicode_form": None}, "A & ﬁ url é"),
        ({"unicode_form": "NFD"}, "A & ﬁ url e\u0301"),
        ({"replace_urls": None}, "A & fi www.a.example é"),
        ({"replace_urls": r" \1 "}, r"A & fi \1 é"),
        ({"lowercase": True}, "a & fi url é"),
        ({"collapse_whitespace": False}, "A &  fi   url  é"),
        ({"max_characters": 4}, "A &"),
        ({"max_characters": 5}, "A & f"),
    ],
)
def test_clean_text_parameters(parameters: dict[str, object], cleaned: str) -> None:
    assert clean("A &amp; <b>ﬁ</b> www.a.example é", **parameters) == cleaned


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"unicode_form": "NFX"}, "unicode_form must be one of .*; got 'NFX'"),
        ({"max_characters": 0}, "max_characters must be at least 1 or None; got 0"),
    ],
)
def test_clean_text_refuses(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clean("text", **parameters)


def test_original_text_stays() -> None:
    rows = pd.DataFrame({"text": ["a &amp; b"]})
    assert CleanText().transform(rows)["text"].item() == "a &amp; b"


def statistics(message: str) -> dict[str, float]:
    counts = TextStatistics(prefix="").transform(pd.DataFrame({"text": [message]}))
    return counts.drop(columns="text").iloc[0].to_dict()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", dict.fromkeys(text.STATISTICS, 0)),
        ("Hello, World 42!", {"length": 16, "words": 3, "digits": 2, "capital_share": 0.2}),
        ("ab cdef", {"word_length": 3}),
        ("WOW!!! Really?! ?", {"exclamations": 4, "questions": 2, "words": 2}),
        ("12:30 ... --", {"capital_share": 0, "words": 2, "digits": 4, "word_length": 2}),
        ("'quoted' rock 'n' roll's", {"words": 4}),
        ("don't don\u2019t dont well-made", {"words": 5, "negations": 3}),
        ("No, not never. NOR without!", {"negations": 5}),
        ("isn't can't cannot hardly n't", {"negations": 5}),
        ("nothing none nobody notable know want note annoy", {"negations": 3}),
        ("no_one said no no no", {"negations": 4}),
        ("no\u00ebl not\u00e9 \u00e9no", {"negations": 0, "words": 3}),
        ("But butter; however, although though yet, except", {"contrasts": 6}),
        ("attribute howevers exception", {"contrasts": 0}),
        ("\u00c9t\u00e9 \u00e0 Z\u00fcrich", {"capital_share": 2 / 10, "words": 3}),
        ("e\u0301te\u0301 fin", {"words": 2, "word_length": 3}),
        ("日本語", {"words": 1, "capital_share": 0, "length": 3}),
        ("٣٤", {"digits": 2, "words": 1}),
        ("😀😀 ok ⭐", {"emojis": 3, "words": 1}),
        ("👍🏽", {"emojis": 1, "length": 2}),
        ("👨\u200d👩\u200d👧\u200d👦", {"emojis": 1}),
        ("❤\ufe0f\u200d🔥 ❤\ufe0f", {"emojis": 2, "words": 0}),
        ("🇫🇷🇩🇪 🇪🇸", {"emojis": 3}),
        ("1\ufe0f\u20e3", {"emojis": 1, "digits": 1}),
        ("™ © → ½ :-)", {"emojis": 0, "words": 0}),
        ("a\nb\r\n\n", {"words": 2, "length": 6}),
    ],
)
def test_text_statistics(message: str, expected: dict[str, float]) -> None:
    counts = statistics(message)
    assert {name: counts[name] for name in expected} == pytest.approx(expected)


def test_words_do_not_reach_into_the_next_text() -> None:
    rows = pd.DataFrame({"text": ["do", "n't", "no", "ise 🇫", "🇷", "👍\u200d", "🔥"]})
    counts = TextStatistics().transform(rows)
    assert counts["text_words"].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert counts["text_negations"].tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert counts["text_emojis"].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_chunks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"text": ["Good, but no!", "", "x" * 50, None, "Not 1 😀", "ok"]})
    at_once = TextStatistics().transform(rows)
    monkeypatch.setattr(text, "_CHUNK_CHARACTERS", 10)
    pd.testing.assert_frame_equal(TextStatistics().transform(rows), at_once)


def test_emoji_and_letters_of_every_code_point_are_apart() -> None:
    classes = text._classes()
    letters = [code for first, last in text._EMOJI_RANGES for code in range(first, last + 1)]
    assert not any(chr(code).isalpha() or chr(code).isdecimal() for code in letters)
    assert len(classes) == 0x110000
    assert classes.max() < 0x80
