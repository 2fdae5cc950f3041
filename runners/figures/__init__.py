"""Pictures without global state: every function returns a figure, `save` writes it, `report` gathers a run's."""

from runners.figures.curves import curves
from runners.figures.images import grid, interpolation, panels, reconstruction_rows
from runners.figures.report import report
from runners.figures.save import png_bytes, save

__all__ = ["curves", "grid", "interpolation", "panels", "png_bytes", "reconstruction_rows", "report", "save"]
