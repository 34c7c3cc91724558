"""How objects of the Python interface show themselves in a notebook."""

import html


def as_preformatted(text: str) -> str:
    """Return a text as HTML that keeps its columns."""
    return f'<pre style="line-height: 1.35">{html.escape(text)}</pre>'


def as_html(svg: bytes) -> str:
    """Return a figure as HTML."""
    return svg.decode("utf-8")
