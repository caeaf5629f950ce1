"""What all pictures have in common, for those who print them: ``fw.plots.style("paper")``."""

from fluid.plots.style import style

__all__ = ["style"]
