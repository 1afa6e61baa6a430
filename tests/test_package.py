"""The wheel holds the whole package and nothing else, works from wherever it is installed, and no module of it is
ever imported under two names."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ontick

ROOT = Path(ontick.__file__).parent
UNSHIPPED = {"tests", "docs"}


def kept_files() -> list[Path]:
    """The files of the repository, relative to its root: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the files of the repository are asked from git, and this is no git checkout")
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built offline from a copy, so that no build folder appears in the tree."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("this tests the repository, and an installed package is tested")
    source = tmp_path_factory.mktemp("source") / "ontick"
    for name in kept_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def held(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_the_wheel_holds_every_module_of_every_package(held):
    modules = {f"ontick/{p.as_posix()}" for p in kept_files() if p.suffix == ".py" and p.parts[0] not in UNSHIPPED}
    assert len(modules) > 30
    assert {name for name in held if name.endswith(".py")} == modules


def test_the_wheel_holds_the_presets_and_the_assets(held):
    data = {
        f"ontick/{p.as_posix()}"
        for p in kept_files()
        if (p.parts[0] == "configs" and p.suffix == ".yaml")
        or (p.parts[0] == "assets" and p.suffix in (".json", ".safetensors"))
    }
    assert "ontick/configs/budgets/cpu-20hz.yaml" in data
    assert data <= held


def test_the_wheel_holds_nothing_else(held):
    parts = {name.split("/")[0] for name in held}
    assert parts == {"ontick", f"ontick-{ontick.__version__}.dist-info"}
    assert not any("/results/" in name for name in held)
    second = {name.split("/")[1] for name in held if name.startswith("ontick/")}
    assert not second & {*UNSHIPPED, "runs", "build", ".venv", ".git", "ontick.egg-info", "pyproject.toml"}
    suffixes = {Path(name).suffix for name in held if name.startswith("ontick/")}
    assert suffixes <= {".py", ".yaml", ".json", ".safetensors", ".html", ".service"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder that the wheel alone is installed in."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--no-index", "--target", str(target), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def elsewhere(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python in a folder that knows nothing of the repository, with the installed package first on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_installed_package_is_imported_from_where_it_is_installed(installed, tmp_path):
    code = """
import json, sys, ontick.policy, ontick.runtime
from ontick.runtime import budget_names
from ontick.diffusion import load_plan
load_plan("ddim-10")
files = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "ontick"}
print(json.dumps([files, budget_names()]))
"""
    done = elsewhere(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    files, budgets = json.loads(done.stdout)
    assert "ontick.policy.transformer" in files
    assert all(Path(file).is_relative_to(installed) for file in files.values())
    assert "cpu-20hz" in budgets  # the presets lie beside the code


def test_the_installed_command_tells_its_version(installed, tmp_path):
    done = elsewhere(installed, tmp_path, "-m", "ontick", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"ontick {ontick.__version__}"), done.stderr


def test_the_installed_command_refuses_bad_usage_in_one_line(installed, tmp_path):
    done = elsewhere(installed, tmp_path, "-m", "ontick", "no-such-verb")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout


# -- one name a module ------------------------------------------------------------------------------------------------

# A pytest plugin that writes the names under which each file below the root was imported.
PLUGIN = """
import json, os, sys
from pathlib import Path

def pytest_collection_finish(session):
    root = Path(os.environ["ONTICK_ROOT"])
    names = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or not os.path.isabs(file):  # some of torch's modules name a file that is none
            continue
        file = Path(file).resolve()
        if file.is_relative_to(root) and ".venv" not in file.parts:
            names.setdefault(str(file.relative_to(root)), []).append(name)
    Path(os.environ["ONTICK_NAMES"]).write_text(json.dumps({"names": names, "tests": len(session.items)}))
"""


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> dict:
    """What pytest has imported once it has collected the whole suite, by file: names, and how many tests."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "names_plugin.py").write_text(PLUGIN)
    report = folder / "names.json"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        "PYTHONPATH": str(folder),
        "ONTICK_ROOT": str(ROOT.resolve()),
        "ONTICK_NAMES": str(report),
    }
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "names_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(ROOT / "tests")], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert report.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(report.read_text())


@pytest.mark.slow
def test_collecting_the_tests_imports_no_module_under_two_names(collected):
    assert collected["tests"] > 100
    assert not {file: names for file, names in collected["names"].items() if len(names) > 1}


def test_the_root_is_imported_as_ontick_and_as_nothing_else(collected):
    assert collected["names"]["__init__.py"] == ["ontick"]
    modules = {file: names for file, names in collected["names"].items() if Path(file).parts[0] not in UNSHIPPED}
    assert all(names[0].split(".")[0] == "ontick" for names in modules.values())


def test_no_test_folder_is_a_package():
    """With an `__init__.py` below tests/, pytest would walk up to the root's and import the package a second time."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
