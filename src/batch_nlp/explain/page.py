"""Explanations as a page that a browser shows, with nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from batch_nlp.explain.words import Piece
from batch_nlp.schemas import LABELS

_FOR, _AGAINST = "0, 114, 178", "213, 94, 0"  # blue and vermilion of Okabe and Ito's palette

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Why these labels</title>
<style>
:root {{ color-scheme: light; }}
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: #fff; color: #1b1b1b;
  font-family: system-ui, sans-serif; line-height: 1.5; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }}
h3 {{ font-size: 1rem; margin: 1rem 0 0.3rem; }}
section {{ border-top: 2px solid #d0d0d0; padding: 1.2rem 0; }}
blockquote {{ margin: 0.6rem 0; padding: 0.6rem 0.8rem; background: #fafafa; white-space: pre-wrap;
  overflow-wrap: anywhere; }}
.for {{ background: rgba({blue}, var(--depth));
  border-bottom: 2px solid rgba({blue}, calc(1.6 * var(--depth))); }}
.against {{ background: rgba({red}, var(--depth));
  border-bottom: 2px dotted rgba({red}, calc(1.6 * var(--depth))); }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.9rem; }}
tr.group td {{ font-weight: 600; padding-top: 0.4rem; }}
td {{ padding: 0.1rem 0.5rem 0.1rem 0; overflow-wrap: anywhere; }}
td.name {{ width: 38%; }}
td.number {{ width: 6rem; text-align: right; font-variant-numeric: tabular-nums; }}
.bar {{ display: block; height: 0.8rem; min-width: 1px; }}
.bar.plus {{ background: rgb({blue}); }}
.bar.minus {{ background: rgb({red}); }}
.note {{ color: #555; font-size: 0.9rem; }}
</style>
</head>
<body>
<main>
<h1>Why these labels</h1>
<p>{n} of model {model}. A number says how far a word or a feature moves the log odds of the
predicted class: <span class="for" style="--depth: 0.25">up, for the label</span> or
<span class="against" style="--depth: 0.25">down, against it</span>. Point at a word to read its
number. The words add up to the margin of the model of the text alone, the features to the
margin of the classifier, which takes the scores of the text as features. Probabilities are made
of the classifier's margins and then calibrated.</p>
{sections}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Sum:
    """A base, what is added to it, and the margin that comes out.

    Parameters
    ----------
    title : str
        What is added.
    groups : sequence of (str, float, sequence of (str, float, float))
        A heading, the sum of all its terms, and those shown below: name, value, contribution.
    base, margin : float
        Before and after.
    """

    title: str
    groups: Sequence[tuple[str, float, Sequence[tuple[str, float, float]]]]
    base: float
    margin: float


@dataclass(frozen=True)
class Message:
    """What the page says of one message.

    Parameters
    ----------
    id : str
        Of the message.
    label : str
        The predicted class.
    probabilities : sequence of float of length 3
        Of each class, calibrated.
    pieces : sequence of (str, float or None)
        The text as it was read, cut into words; what each adds.
    notes : sequence of str
        Sentences under the text.
    sums : sequence of Sum
        How the label comes about.
    """

    id: str
    label: str
    probabilities: Sequence[float]
    pieces: Sequence[Piece]
    notes: Sequence[str]
    sums: Sequence[Sum]


def explanations_html(messages: Sequence[Message], *, model: str) -> str:
    """Make the page; every text on it is escaped.

    Parameters
    ----------
    messages : sequence of Message
        In the order of the page.
    model : str
        Name and version.

    Returns
    -------
    str
        A whole HTML document.

    Examples
    --------
    >>> one = Message("a<b", "positive", [0.1, 0.2, 0.7], [("good", 0.4)], [], [])
    >>> page = explanations_html([one], model="sentiment 1")
    >>> "a&lt;b" in page, "a<b" in page
    (True, False)
    """
    return _PAGE.format(
        blue=_FOR,
        red=_AGAINST,
        n=f"{len(messages):,} message{'' if len(messages) == 1 else 's'}",
        model=escape(model),
        sections="\n".join(_section(message) for message in messages),
    )


def _section(message: Message) -> str:
    probabilities = ", ".join(
        f"{name} {share:.1%}" for name, share in zip(LABELS, message.probabilities, strict=True)
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in message.notes)
    return (
        f"<section>\n<h2>{escape(message.id)}: {escape(message.label)}</h2>\n"
        f"<p>{probabilities}</p>\n<blockquote>{_text(message.pieces)}</blockquote>\n"
        f"{notes}{''.join(_sum(each) for each in message.sums)}</section>"
    )


def _text(pieces: Sequence[Piece]) -> str:
    deepest = max((abs(added) for _, added in pieces if added is not None), default=0.0)

    def shown(text: str, added: float | None) -> str:
        if not added:
            return escape(text)
        depth = 0.6 * abs(added) / deepest
        side = "for" if added > 0 else "against"
        return (
            f'<span class="{side}" style="--depth: {depth:.2f}" title="{added:+.3f}">'
            f"{escape(text)}</span>"
        )

    return "".join(shown(*piece) for piece in pieces)


def _sum(each: Sum) -> str:
    # The sum of the only group stands below, and its bar would dwarf those of its terms.
    compared = len(each.groups) > 1
    lengths = [abs(added) for _, _, terms in each.groups for _, _, added in terms]
    lengths += [abs(total) for _, total, _ in each.groups if compared]
    widest = max(lengths, default=0.0) or 1.0
    groups = "".join(
        _row(heading, None, total, total / widest if compared else None)
        + "".join(_row(name, value, added, added / widest) for name, value, added in terms)
        for heading, total, terms in each.groups
    )
    total = sum(total for _, total, _ in each.groups)
    return (
        f"<h3>{escape(each.title)}</h3>\n<table>\n{groups}</table>\n"
        f'<p class="note">Base {each.base:+.3f}, all of these {total:+.3f}, '
        f"margin {each.margin:+.3f}.</p>\n"
    )


def _row(name: str, value: float | None, added: float, length: float | None) -> str:
    """Draw one term, or with no value the sum of a group."""
    start = '<tr class="group">' if value is None else "<tr>"
    number = "" if value is None else f"{value:.3g}"
    bar = (
        ""
        if length is None
        else f'<span class="bar {"plus" if length > 0 else "minus"}" '
        f'style="width: {100 * abs(length):.1f}%"></span>'
    )
    return (
        f'{start}<td class="name">{escape(name)}</td><td class="number">{number}</td>'
        f'<td>{bar}</td><td class="number">{added:+.3f}</td></tr>\n'
    )
