"""Copies the pages, and every file that they link to, into a folder laid out as the repository is.

    python docs/stage.py runs/docs-source

Links are relative to the repository, and so they work there too: on GitHub and in what mkdocs builds of the folder.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """What is built: the two pages of the root, and all of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def linked(page: Path) -> set[Path]:
    """The files and folders of this repository that a page links to. Links in code blocks are none."""
    targets = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {(page.parent / target).resolve() for target in targets if ":" not in target}


def stage(out: Path) -> None:
    """Of a folder that is linked to, its files are copied, and not what is in folders below it."""
    found = {*pages(), *(target for page in pages() for target in linked(page))}
    files = {file for place in found for file in (place.iterdir() if place.is_dir() else [place])}
    for file in sorted(file for file in files if file.is_file()):
        copy = out / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
