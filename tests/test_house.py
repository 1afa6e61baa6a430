"""Rules of the house that hold in every shipped file, read from the source: imports inside functions count too."""

import ast
from pathlib import Path

import pytest

import ontick

ROOT = Path(ontick.__file__).parent
PARTS = ("diffusion", "policy", "accel", "runtime", "envs", "video", "data", "benchmarks", "commands")
MAY_IMPORT = {
    "diffusion": {"diffusion"},
    "policy": {"policy", "diffusion"},
    "accel": {"accel", "diffusion"},
    "runtime": {"runtime"},
    "envs": {"envs", "runtime"},
    "video": {"video", "diffusion", "runtime"},
    "data": {"data", "envs", "video"},
    "benchmarks": {"benchmarks", "diffusion", "policy", "accel", "runtime", "video", "data"},
    "commands": {"commands", "diffusion", "policy", "accel", "runtime", "envs", "video", "data", "benchmarks"},
}


def shipped() -> list[tuple[str, Path]]:
    """Benchmarks that are run as scripts are users of the house, not parts of it: they name it in full."""
    files = [(part, path) for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    return [(part, path) for part, path in files if not (part == "benchmarks" and "from ontick." in path.read_text())]


def imported_parts(part: str, path: Path) -> set[str]:
    """The parts of the house that a file names, relatively or in full."""
    names, depth = set(), len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and 0 < node.level < depth:
            names.add(part)
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ontick."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ontick.")}
    return names & set(PARTS)


@pytest.mark.parametrize(("part", "path"), shipped(), ids=lambda value: str(getattr(value, "name", value)))
def test_a_part_imports_only_what_it_stands_on(part, path):
    assert imported_parts(part, path) <= MAY_IMPORT[part]


def test_nobody_but_the_clock_reads_the_time():
    for _, path in shipped():
        if path != ROOT / "runtime" / "clock.py":
            for node in ast.walk(ast.parse(path.read_text())):
                imports = isinstance(node, ast.Import | ast.ImportFrom)
                named = {alias.name for alias in node.names} | {getattr(node, "module", None)} if imports else set()
                assert not named & {"time", "datetime"}, path
