"""Pictures without global state: every function returns a figure, `save` writes it, `report` gathers a run's."""

from runners.figures.adversarial import generator_losses, stopping
from runners.figures.comparisons import differences, surprise_along
from runners.figures.curves import curves
from runners.figures.fidelity import precision_recall
from runners.figures.gradients import gradients
from runners.figures.images import filmstrips, grid, interpolation, panels, reconstruction_rows
from runners.figures.inference import active_units, annealing, gaps
from runners.figures.inline import Picture, html
from runners.figures.inversion import inversion, places
from runners.figures.latent_plane import latent_plane
from runners.figures.lines import Panel, lines
from runners.figures.mixtures import mixtures
from runners.figures.paths import path_energies
from runners.figures.rate_distortion import rate_distortion, slopes
from runners.figures.report import report
from runners.figures.save import png_bytes, save
from runners.figures.text import sequences, surprise, temperatures

__all__ = [
    "Panel",
    "Picture",
    "active_units",
    "annealing",
    "curves",
    "differences",
    "filmstrips",
    "gaps",
    "generator_losses",
    "gradients",
    "grid",
    "html",
    "interpolation",
    "inversion",
    "lines",
    "latent_plane",
    "mixtures",
    "panels",
    "path_energies",
    "places",
    "png_bytes",
    "precision_recall",
    "rate_distortion",
    "reconstruction_rows",
    "report",
    "save",
    "sequences",
    "slopes",
    "stopping",
    "surprise",
    "surprise_along",
    "temperatures",
]
