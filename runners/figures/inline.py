"""Figures that show themselves in a notebook, alone or beneath a text, without pyplot and its state."""

import base64
from html import escape

from matplotlib.figure import Figure

from runners.figures.save import png_bytes

__all__ = ["Picture", "html"]


class Picture(Figure):
    """A figure that Jupyter and IPython's own window show inline."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def html(text: str, *pictures: Figure) -> str:
    """A text as it is in a terminal, and pictures beneath it, for the `_repr_html_` of what has both."""
    images = (f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}" for picture in pictures)
    shown = (f'<img src="{image}" style="max-width: 100%; display: block; margin-top: 1em">' for image in images)
    return f"<pre>{escape(text, quote=False)}</pre>" + "".join(shown)
