"""The code on the pages of docs/extend, as the files that they say it is."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

import ontick

PAGES = Path(ontick.__file__).parent / "docs" / "extend"
BLOCK = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def page():
    """page(name) -> {file: its text}: the fenced blocks below a line that is a file's name and a colon."""

    def read(name: str) -> dict[str, str]:
        return dict(BLOCK.findall((PAGES / f"{name}.md").read_text()))

    return read


@pytest.fixture(scope="module")
def installed(page, tmp_path_factory):
    """installed(name, module) -> the module of a page, on the path with its entry points, as pip would leave it."""
    before, added = set(sys.modules), []

    def install(name: str, module: str):
        files, folder = page(name), tmp_path_factory.mktemp("installed")
        project = tomllib.loads(files["pyproject.toml"])["project"]
        (folder / f"{module}.py").write_text(files[f"{module}.py"])
        told = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        told.mkdir()
        named = f"Name: {project['name']}\nVersion: {project['version']}\n"
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\n{named}")
        groups = project["entry-points"].items()
        points = [f"[{group}]\n{key} = {value}\n" for group, own in groups for key, value in own.items()]
        (told / "entry_points.txt").write_text("\n".join(points))
        sys.path.append(str(folder))
        added.append(str(folder))
        importlib.invalidate_caches()
        return importlib.import_module(module)

    yield install
    for folder in added:
        sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if name.startswith("ontick_"):
            del sys.modules[name]
    importlib.invalidate_caches()
