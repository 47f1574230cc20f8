"""Steps that read the text of a message: cleaning it, and counting what is in it."""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")

# Only names that HTML has, so that "a <b and c> d" written by a person stays.
_TAG_NAMES = (
    "a|abbr|address|article|aside|b|big|blockquote|body|br|center|cite|code|dd|del|details|div|dl"
    "|dt|em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins"
    "|label|li|link|main|mark|meta|nav|ol|option|p|pre|q|s|section|select|small|span|strike|strong"
    "|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|video"
)
# What stays open is searched only up to the next opening, so that the time stays linear.
_TAG = re.compile(
    r"<!--(?:(?!<!--).)*?-->"
    r"|<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>"
    rf"|</?(?:{_TAG_NAMES})(?:\s[^<>]*)?/?>",
    re.IGNORECASE | re.DOTALL,
)
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>]*[^\s<>.,;:!?'\"()\[\]]", re.IGNORECASE)
# Control characters part words; marks without width (soft hyphen, zero-width space, directions)
# don't. The joiners U+200C and U+200D stay: emoji sequences and several scripts need them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WIDTHLESS = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


class CleanText(RowLocalStep):
    """Add a cleaned copy of a text; the original stays beside it.

    HTML entities become characters, HTML tags become spaces (a lone ``<3`` or ``a < b`` is no
    tag), control characters become spaces and characters without width go. Emoji, punctuation,
    capitals and negation stay, because they carry opinion. A missing text stays missing, and a
    text of nothing but markup becomes an empty string.

    Parameters
    ----------
    column : str, default="text"
        Text to clean.
    output : str, default="clean_text"
        Name of the added column, of dtype ``str``.
    unicode_form : {"NFC", "NFD", "NFKC", "NFKD"} or None, default="NFKC"
        Unicode normal form to bring the text to; NFKC also turns non-breaking spaces into
        spaces and full-width letters into plain ones. None leaves the characters as they are.
    strip_html : bool, default=True
        Whether to resolve entities and remove tags, comments, scripts and styles.
    replace_urls : str or None, default=" url "
        What stands for a web address (``http://``, ``https://`` or ``www.``); None keeps it.
    lowercase : bool, default=False
        Whether to lower the case.
    collapse_whitespace : bool, default=True
        Whether to make any run of white space one space, with none at the ends.
    max_characters : int or None, default=None
        Longest cleaned text, in characters; what follows is cut off.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import CleanText
    >>> rows = pd.DataFrame({"text": ["Not<br/>bad &amp; <3 it!", "See  https://a.example/b."]})
    >>> CleanText().transform(rows)["clean_text"].tolist()
    ['Not bad & <3 it!', 'See url .']
    """

    def __init__(
        self,
        *,
        column: str = "text",
        output: str = "clean_text",
        unicode_form: str | None = "NFKC",
        strip_html: bool = True,
        replace_urls: str | None = " url ",
        lowercase: bool = False,
        collapse_whitespace: bool = True,
        max_characters: int | None = None,
    ) -> None:
        self.column = column
        self.output = output
        self.unicode_form = unicode_form
        self.strip_html = strip_html
        self.replace_urls = replace_urls
        self.lowercase = lowercase
        self.collapse_whitespace = collapse_whitespace
        self.max_characters = max_characters

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        return [self.output]

    def _check_parameters(self) -> None:
        if self.unicode_form is not None and self.unicode_form not in UNICODE_FORMS:
            raise ValueError(
                f"CleanText: unicode_form must be one of {UNICODE_FORMS} or None; "
                f"got {self.unicode_form!r}."
            )
        if self.max_characters is not None and self.max_characters < 1:
            raise ValueError(
                f"CleanText: max_characters must be at least 1 or None; got {self.max_characters}."
            )

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        texts = pa.array(X[self.column], pa.string()).to_pylist()
        cleaned = [None if text is None else self._clean(text) for text in texts]
        return {self.output: pd.array(cleaned, dtype="str")}

    def _clean(self, text: str) -> str:
        if self.strip_html and "&" in text:
            text = html.unescape(text)
        if self.unicode_form is not None:
            text = unicodedata.normalize(self.unicode_form, text)  # type: ignore[arg-type]
        if self.strip_html and "<" in text:
            text = _TAG.sub(" ", text)
        if self.replace_urls is not None and ("://" in text or "www." in text.lower()):
            # A function, so that a backslash in the replacement means itself.
            replacement = self.replace_urls
            text = _URL.sub(lambda _: replacement, text)
        # Of white space, control characters and what has no width, only a space is printable.
        plain = text.isprintable()
        if not plain and self.collapse_whitespace:
            # Most often it is the ends of lines alone.
            text = " ".join(text.split())
            plain = text.isprintable()
        if not plain:
            text = _CONTROL.sub(" ", text)
            if not text.isascii():
                text = _WIDTHLESS.sub("", text)
        if self.lowercase:
            text = text.lower()
        if self.collapse_whitespace:
            text = text.strip(" ") if plain and "  " not in text else " ".join(text.split())
        if self.max_characters is not None and len(text) > self.max_characters:
            text = text[: self.max_characters]
            text = text.rstrip() if self.collapse_whitespace else text
        return text


STATISTICS = (
    "length",
    "words",
    "exclamations",
    "questions",
    "capital_share",
    "digits",
    "emojis",
    "negations",
    "contrasts",
    "word_length",
)

# Whole words in any case; verbs also as people type them without the apostrophe ("dont").
_NEGATION_PATTERN = (
    r"\b(?:not|no|nor|never|none|nobody|nothing|nowhere|neither|without|hardly|barely|scarcely"
    r"|cannot|(?:ai|are|ca|could|did|do|does|had|has|have|is|should|was|were|wo|would)nt)\b"
    r"|n't\b"
)
_CONTRAST_PATTERN = (
    r"\b(?:but|however|although|though|yet|except|nevertheless|nonetheless|despite|otherwise"
    r"|whereas)\b"
)

_EMOJI_RANGES = (
    (0x231A, 0x231B),  # watch, hourglass
    (0x23E9, 0x23F3),  # media buttons, clocks
    (0x23F8, 0x23FA),
    (0x2600, 0x27BF),  # miscellaneous symbols, dingbats
    (0x2B1B, 0x2B1C),
    (0x2B50, 0x2B50),
    (0x2B55, 0x2B55),
    (0x1F004, 0x1F004),
    (0x1F0CF, 0x1F0CF),
    (0x1F170, 0x1F19A),
    (0x1F300, 0x1F3FA),  # up to the skin tones, which modify the emoji before them
    (0x1F400, 0x1F64F),
    (0x1F680, 0x1F6FF),
    (0x1F7E0, 0x1F7F0),
    (0x1F900, 0x1F9FF),
    (0x1FA70, 0x1FAFF),
)
_EMOJI, _JOINER, _REGIONAL = 1, 2, 3
_CHUNK_CHARACTERS = 1_000_000


@functools.cache
def _classes() -> NDArray[np.uint8]:
    """Return, for each Unicode code point, the ASCII character that stands for its class.

    ASCII letters and digits stand for themselves, ``Z`` and ``z`` for other letters (capital or
    not), ``0`` for other decimal digits, ``_`` for what continues a word (combining marks) and
    three control characters for what emoji are made of. A space stands for all else.
    """
    table = np.full(0x110000, ord(" "), dtype=np.uint8)
    # Above are only private, unassigned and formatting characters.
    codes = np.arange(0x32000, dtype=np.uint32)
    characters = codes.view("U1")
    letter, digit = np.strings.isalpha(characters), np.strings.isdecimal(characters)
    table[codes[letter]] = ord("z")
    table[codes[letter & np.strings.isupper(characters)]] = ord("Z")
    table[codes[digit]] = ord("0")
    kept = codes[letter & (codes < 0x80)]
    table[kept] = kept
    others = codes[~(letter | digit)].tolist()
    table[[code for code in others if unicodedata.category(chr(code))[0] == "M"]] = ord("_")
    for mark in "!?":
        table[ord(mark)] = ord(mark)
    for apostrophe in "'\u2019\u02bc\uff07":
        table[ord(apostrophe)] = ord("'")
    table[0xFE0F] = ord(" ")  # the variation selector follows emoji, not words
    for first, last in _EMOJI_RANGES:
        table[first : last + 1] = _EMOJI
    table[0x20E3] = _EMOJI  # the frame of a keycap
    table[0x200D] = _JOINER
    table[0x1F1E6:0x1F200] = _REGIONAL
    return table


def _between(values: NDArray[np.uint8], first: str, last: str) -> NDArray[np.bool_]:
    # One comparison: what lies below `first` wraps round to a large number.
    return (values - np.uint8(ord(first))) <= np.uint8(ord(last) - ord(first))


def _shifted(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return the mask of `by` characters earlier."""
    moved = np.zeros_like(mask)
    moved[by:] = mask[:-by]
    return moved


def _chunks(texts: Sequence[str]) -> Iterator[slice]:
    """Cut rows into slices of at most about a million characters, to bound the memory."""
    begin, characters = 0, 0
    for row, text in enumerate(texts):
        characters += len(text) + 1
        if characters >= _CHUNK_CHARACTERS:
            yield slice(begin, row + 1)
            begin, characters = row + 1, 0
    if begin < len(texts):
        yield slice(begin, len(texts))


def _count(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the `STATISTICS` of some texts, an array of shape (n_texts, n_statistics)."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    # The line end after each text keeps what stands in one text from touching the next.
    joined = "".join([f"{text}\n" for text in texts])
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    classes = _classes()[codes]
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])

    owners = np.repeat(np.arange(len(texts)), lengths + 1)

    def total(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        counted = np.bincount(owners[np.flatnonzero(mask)], minlength=len(texts))
        return counted.astype(np.float64)

    def matches(pattern: str) -> NDArray[np.float64]:
        counted = pc.count_substring_regex(rows, pattern=pattern, ignore_case=True)
        return np.asarray(counted, dtype=np.float64)

    rows = pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(classes)
    )
    capital = _between(classes, "A", "Z")
    letter = capital | _between(classes, "a", "z")
    digit = _between(classes, "0", "9")
    in_word = letter | digit | (classes == ord("_"))
    after_apostrophe = _shifted(classes == ord("'"), 1) & _shifted(in_word, 2)
    word_start = (letter | digit) & ~_shifted(in_word, 1) & ~after_apostrophe
    emoji = (classes == _EMOJI) & ~_shifted(classes == _JOINER, 1)

    # Most characters are letters: the others are fewer to count.
    n_letters = lengths + 1.0 - total(~letter)
    n_digits, n_words = total(digit), total(word_start)
    return np.column_stack(
        [
            lengths.astype(np.float64),
            n_words,
            total(classes == ord("!")),
            total(classes == ord("?")),
            total(capital) / np.maximum(n_letters, 1.0),
            n_digits,
            total(emoji) + np.ceil(total(classes == _REGIONAL) / 2.0),
            matches(_NEGATION_PATTERN),
            matches(_CONTRAST_PATTERN),
            (n_letters + n_digits) / np.maximum(n_words, 1.0),
        ]
    )


class TextStatistics(RowLocalStep):
    """Add counts of what a text is made of, each a float column; a missing text gives NaN.

    ========================  ===========================================================
    ``text_length``           characters (Unicode code points)
    ``text_words``            words: runs of letters and digits; an apostrophe inside joins
    ``text_exclamations``     exclamation marks
    ``text_questions``        question marks
    ``text_capital_share``    capital letters among the letters, 0 to 1; 0 without letters
    ``text_digits``           decimal digits
    ``text_emojis``           pictographs, symbols and dingbats; a sequence counts once
    ``text_negations``        not, no, never, without, hardly ..., every n't, and "dont"
    ``text_contrasts``        but, however, although, though, yet, except ...
    ``text_word_length``      mean letters and digits of a word; 0 without words
    ========================  ===========================================================

    Negation and contrast are English and count whole words in any case. An emoji with a skin
    tone, one joined from several by zero-width joiners, a keycap and a flag (two regional
    indicators) count once each.

    Parameters
    ----------
    column : str, default="text"
        Text to count in.
    prefix : str, default="text_"
        What the names of the added columns begin with.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import TextStatistics
    >>> rows = pd.DataFrame({"text": ["Don't go! GREAT view, but 2 bugs 👍🏽"]})
    >>> counts = TextStatistics().transform(rows)
    >>> counts[["text_words", "text_negations", "text_contrasts", "text_emojis"]].to_numpy()
    array([[7., 1., 1., 1.]])
    """

    def __init__(self, *, column: str = "text", prefix: str = "text_") -> None:
        self.column = column
        self.prefix = prefix

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        return [self.prefix + name for name in STATISTICS]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        missing = X[self.column].isna().to_numpy()
        texts = X[self.column].astype(object).where(~missing, "").tolist()
        counts = np.concatenate(
            [np.empty((0, len(STATISTICS))), *(_count(texts[rows]) for rows in _chunks(texts))]
        )
        counts[missing] = np.nan
        return dict(zip(self._columns_added(), counts.T, strict=True))
