"""What the checkpoint folders of all families have in common: config.json, and its format."""

import json
from pathlib import Path
from typing import Any

from .errors import InputError

FORMAT = "ontick-checkpoint-1"


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, checked for its format. Raises InputError."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a checkpoint: it has no config.json")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise InputError(f"{path}: format is {got!r}, wanted {FORMAT!r}")
    return config


def check_replaceable(folder: Path) -> None:
    """Raises InputError where the folder holds anything but an older checkpoint."""
    if folder.exists() and not (folder / "config.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a checkpoint; give another place or remove it")
