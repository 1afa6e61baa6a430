"""Pictures that commands leave beside what they write, where matplotlib is installed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path


def drawn(draw: Callable[[Path], None], path: Path) -> None:
    """Call `draw`, which may import matplotlib, and say where the picture is, or why there is none."""
    if importlib.util.find_spec("matplotlib") is None:
        print("picture: not drawn, matplotlib is not installed")
        return
    draw(path)
    print(f"picture: {path}")
