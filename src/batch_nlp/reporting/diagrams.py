"""Pipelines as diagrams that a browser shows."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from sklearn.utils import estimator_html_repr

from batch_nlp.tables import write_text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{style}
<style>
:root {{ color-scheme: light; }}
body {{ margin: 2rem; background: #fff; color: #1b1b1b; font-family: system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; font-weight: 600; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>Click a step to see its parameters.</p>
{diagram}
</main>
</body>
</html>
"""


def pipeline_html(pipeline: Any, title: str, path: Path) -> None:
    """Write scikit-learn's diagram of a pipeline as a page of its own, whole or not at all.

    The page loads nothing from elsewhere; its links to the documentation need a network.

    Parameters
    ----------
    pipeline : estimator
        Fitted or not.
    title : str
        Of the page, and its heading.
    path : Path
        Where to; its folder is made if it is not there.
    """
    # The fragment is "<style>…</style><body>…</body>": a page has one body, and styles in its head.
    style, _, diagram = estimator_html_repr(pipeline).partition("<body>")
    page = _PAGE.format(title=escape(title), style=style, diagram=diagram.removesuffix("</body>"))
    write_text(path, page)
