"""Objects in a notebook: pictures that show themselves, texts with pictures beneath them; and Ctrl-C in a session."""

import base64
import re
import signal
from typing import Any

import pytest
import small
import torch
from matplotlib.figure import Figure

from guides import ELBO, Constrained
from runners import figures, gan, svi, text
from runners.adversarial_step import AdversarialStep
from runners.assess import assess
from runners.inference import InferenceStep
from runners.mixture import GRID
from runners.mixtures import Mixtures, mixtures
from runners.rate_distortion import rate_distortion
from runners.run import Run
from runners.text_step import TextStep

PNG = b"\x89PNG\r\n\x1a\n"

quiet: dict[str, Any] = {"batch": 20, "every": 5, "progress": False}


def inference(**settings: Any) -> Run:
    return svi.fit(small.model(), small.amortized(), small.data_set(), **quiet | settings)


def adversarial(**settings: Any) -> Run:
    return gan.fit(*small.networks(), small.data_set(), **quiet | settings)


def characters(**settings: Any) -> Run:
    data = small.text()
    return text.fit(small.reader(data), data, **quiet | settings)


KINDS = {"svi": (inference, InferenceStep), "gan": (adversarial, AdversarialStep), "text": (characters, TextStep)}
kinds = pytest.mark.parametrize("kind", KINDS)


def pictures_in(shown: str) -> int:
    """How many pictures there are beneath a text; each is a whole PNG."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', shown)
    assert all(base64.b64decode(image).startswith(PNG) for image in found)
    return len(found)


def test_every_figure_is_a_picture_and_a_notebook_shows_it() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    rows = [{"step": 1, "elbo": -100.0}, {"step": 2, "elbo": -90.0}]
    for drawn in (figures.grid(torch.rand(4, 1, 8, 8)), figures.curves(rows), figures.curves([])):
        assert isinstance(drawn, figures.Picture)
        assert formatters.PNGFormatter()(drawn) == figures.png_bytes(drawn)
        assert drawn._repr_png_().startswith(PNG)


def test_a_figure_of_pyplot_is_left_alone() -> None:
    assert not hasattr(Figure(), "_repr_png_")


def test_html_is_the_text_escaped_and_the_pictures() -> None:
    shown = figures.html("a < b & c\n  d", figures.grid(torch.rand(2, 1, 8, 8)), figures.grid(torch.rand(2, 1, 8, 8)))
    assert shown.startswith("<pre>a &lt; b &amp; c\n  d</pre>")
    assert pictures_in(shown) == 2
    assert figures.html("alone") == "<pre>alone</pre>"


@kinds
def test_a_fit_shows_its_repr_and_the_curves_so_far(kind: str) -> None:
    fit = KINDS[kind][0](steps=0)
    assert pictures_in(fit._repr_html_()) == 0
    fit.run(10)
    shown = fit._repr_html_()
    assert repr(fit) in shown
    assert pictures_in(shown) == 1


def test_results_show_their_tables_and_pictures() -> None:
    fit = inference(steps=10, objective=ELBO(1.0))
    swept, gaussians = rate_distortion(fit, images=10), mixtures([GRID], ["gan"], steps=2, samples=20, progress=False)
    for found in (swept, gaussians, assess(fit, parts=["codes"], images=20)):
        assert repr(found).splitlines()[0] in found._repr_html_()
        assert pictures_in(found._repr_html_()) == 1
    assert pictures_in(Mixtures()._repr_html_()) == 0


def test_a_constraint_is_a_line_in_the_curves() -> None:
    drawn = inference(steps=10, objective=Constrained(-7.0)).curves()
    assert drawn.findobj(lambda artist: "target -7.00" in str(artist.get_label()))


@kinds
def test_ctrl_c_keeps_what_is_trained_and_run_goes_on_to_the_same_bits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, step = KINDS[kind]
    torch.manual_seed(3)
    whole = make(steps=12)
    work, calls = step.__call__, []

    def once_interrupted(self: Any, *batches: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)  # in mid-step
        return work(self, *batches)

    monkeypatch.setattr(step, "__call__", once_interrupted)
    torch.manual_seed(3)
    cut = make(steps=12)
    assert cut.stopped == signal.SIGINT
    assert cut.history.step == 7
    assert "7 of 12 steps, stopped" in repr(cut)
    assert pictures_in(cut._repr_html_()) == 1
    cut.curves()  # what is done in between changes nothing
    cut.run()
    assert cut.stopped is None
    assert "12 steps:" in repr(cut)
    for name, piece in cut.pieces.items():
        if isinstance(piece, torch.nn.Module):
            assert not small.changed(piece, small.weights(whole.pieces[name]))
    rows = [[row | {"seconds": 0} for row in fit.history.rows] for fit in (cut, whole)]
    assert rows[0] == rows[1]
