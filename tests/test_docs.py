"""What the pages say can be done can be done: commands parse and run, what they name is there, links lead somewhere.

Every command runs, of every page, in the page's order: with few episodes, steps and frames (`QUICK`), and with what
stands for the reader's own robot, checkpoint and server (`OWN`). `make` alone is left to continuous integration, which
runs it, and docs/convert.md, whose files are others', to tests/commands/test_convert.py.
"""

import argparse
import importlib
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

import ontick
from ontick.commands import VERBS, main
from ontick.commands.families import parse_candidate
from ontick.commands.request import shipped_traces
from ontick.commands.robot_terms import terms_of
from ontick.commands.train import DEFAULT_PRESETS, load_preset
from ontick.diffusion import Plan
from ontick.envs import find_task
from ontick.envs.disturbances import Disturbance
from ontick.envs.rendering import render_available
from ontick.runtime import load_budget
from ontick.runtime.robots.finding import make_robot

ROOT = Path(ontick.__file__).parent.resolve()
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SHELL = ("", "sh", "bash")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")
RUNS = ("ontick", "python", "bash", "make")
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


AVOID = "assets/diffusion-transformer/ontick-Avoid-v0"
OWN = {
    "CHECKPOINT": AVOID,
    "DEMOS": "runs/demos/avoid.zarr",
    "PLAN.yaml": "runs/plan.yaml",
    "TASK": "ontick/Avoid-v0",
    "arm.yaml": "sim",
    "so101.yaml": "sim",
    "ws://gpu:8000": "ws://127.0.0.1:PORT",
    "ws://127.0.0.1:8000": "ws://127.0.0.1:PORT",
}
QUICK = {
    "evaluate": "--episodes 2 --workers 1",
    "demos": "--episodes 4 --workers 1",
    "train": "--set steps=2",
    "avoid-pixels": "--set camera_lessons=2",
    "calibrate": "--samples 4",
    "tune": "--plans ddim-4,ddim-2 --seconds 10 --episodes 2",
    "bench": "--quick --n 2",
    "clips": "--episodes 20 --frames 20",
    "drive": "--seconds 10",
    "serve": "--port PORT",
    "stream": "--frames 15",
    "benchmarks/chunk_times.py": "--answers 2",
    "benchmarks/styled_experts.py": "--episodes 2",
    "benchmarks/wakeups.py": "--seconds 2",
}


@dataclass(frozen=True)
class Command:
    """A line of a page: its words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)

    def quick(self, port: int) -> list[str]:
        """The words that a test runs: of two equal options the last is taken."""
        words = [OWN.get(word, word) for word in self.words]
        words += [extra for word in self.words for extra in QUICK.get(word, "").split()]
        if words[1] == "stream" and "--out" not in words:
            words += ["--serve", "127.0.0.1:PORT"]
        return [word.replace("PORT", str(port)) for word in words]


def blocks_of(text: str) -> Iterator[list[str]]:
    """The lines of each block of a page that a shell could read: fenced without another language, or indented."""
    block, fence = list[str](), None
    for line in text.splitlines():
        if fence is None and line.startswith("```"):
            fence = line.strip("`").strip()
        elif fence is not None and line.startswith("```"):
            fence = None
        elif fence in SHELL or (fence is None and line.startswith("    ")):
            block.append(line.strip())
        elif fence is None and line.strip():
            yield block
            block = []
    yield block


def commands_of(page: Path) -> list[Command]:
    """The commands of a page, in order; variables before one are left out."""
    found = []
    for block in blocks_of(page.read_text(encoding="utf-8")):
        for line in "\n".join(block).replace("\\\n", " ").splitlines():
            if re.match(rf"([A-Z_]+=\S+ )*({'|'.join(RUNS)}) ", line):
                words = shlex.split(line, comments=True)
                while "=" in words[0]:
                    words = words[1:]
                found.append(Command(tuple(words)))
    return found


def is_placeholder(value: str) -> bool:
    """CHECKPOINT, PLAN.yaml, arm.yaml that the page shows are for the reader to fill in; in capitals, they say so."""
    return Path(value).stem.isupper()


# -- commands ----------------------------------------------------------------------------------------------------------


def options_of(words: list[str], monkeypatch, capsys) -> argparse.Namespace:
    """What the command line's own parser makes of them; the verb is not run."""
    verb = words[1]
    assert verb in VERBS, f"ontick has no verb {verb}"
    kept: list[argparse.Namespace] = []
    monkeypatch.setattr(importlib.import_module(f"ontick.commands.{verb}"), "run", kept.append)
    code = main(words[1:])
    assert code == 0, capsys.readouterr().err
    return kept[0]


def plans_of(verb: str, options: argparse.Namespace) -> list[str]:
    """The plans that the options name; a stream's are checked by its parser."""
    if verb == "stream":
        return []
    text = getattr(options, "plans", None) or getattr(options, "plan", None) or ""
    names = [name for name in re.split("[,+]", text) if name]
    return [name for name in names if not (verb == "calibrate" and name == "rti")]


def made_by(command: Command) -> set[str]:
    """What a command writes, as far as a later one may name it."""
    words, made = list(command.words), set()
    if words[1:2] == ["convert"]:
        made.add(words[3])
    for option, value in itertools.pairwise(words):
        if option in ("--out", "--json", "--html", "--record"):
            made |= {value, *(str(Path(value).with_suffix(end)) for end in (".zarr", ".hdf5") if "both" in words)}
        made |= set(re.findall(r"\.save\('([^']+)'\)", value))
    return made


MADE = {path for page in PAGES for command in commands_of(page) for path in made_by(command)}


def check_there(value: str, page: Path) -> None:
    """A file that a command reads: in the repository, made by a command of the pages, or shown on its page."""
    made = any(value == path or value.startswith(f"{path}/") for path in MADE)
    shown = f"`{value}`" in page.read_text(encoding="utf-8")
    assert made or shown or is_placeholder(value) or (ROOT / value).exists(), f"nobody made {value}"


def check_named(words: list[str], options: argparse.Namespace, page: Path) -> None:
    """Tasks, plans, budgets, presets and files that the options of a verb name are there."""
    verb, told = words[1], vars(options)
    for task in [name for key in ("tasks", "task") for name in (told.get(key) or "").split(",") if name]:
        if not is_placeholder(task):
            find_task(task)
    for plan in plans_of(verb, options):
        if plan.endswith(".yaml"):
            check_there(plan, page)
        elif not is_placeholder(plan):
            parse_candidate(plan)
    if told.get("budget"):
        load_budget(told["budget"])
    if told.get("disturb"):
        Disturbance.parse(told["disturb"])
    if verb == "train" and told["algorithm"] in DEFAULT_PRESETS:
        load_preset(told["preset"] or DEFAULT_PRESETS[told["algorithm"]], told["set"], told["algorithm"])
    read = [
        told.get(key) for key in ("checkpoint", "data", "begin_from", "model", "source", "policy", "robot", "charge")
    ]
    known = {None, "sim", "measured", *shipped_traces()}
    for value in [str(value) for value in read if value not in known]:
        if "://" not in value:
            check_there(value, page)


@EACH_PAGE
def test_every_command_of_a_page_parses_and_what_it_names_is_there(page, monkeypatch, capsys):
    for command in commands_of(page):
        if command.words[0] == "ontick":
            for words in (list(command.words), command.quick(port=8001)):
                check_named(words, options_of(words, monkeypatch, capsys), page)


@EACH_PAGE
def test_a_script_that_a_page_runs_is_there_and_has_the_options_it_is_given(page):
    for command in commands_of(page):
        _, script, *rest = [*command.words, ""]
        if command.words[0] in ("python", "bash") and not script.startswith("-"):
            text = (ROOT / script).read_text(encoding="utf-8")
            for option in [word for word in rest if word.startswith("--")]:
                assert f'"{option}"' in text, f"{script} has no {option}"
    for script in re.findall(r"`[^`\n]*?(?:python|bash) (benchmarks/[\w./-]+)", page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), script


@EACH_PAGE
def test_a_make_target_that_a_page_names_is_one(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`make ([\w-]+)`", page.read_text(encoding="utf-8"))
    named += [command.words[1] for command in commands_of(page) if command.words[0] == "make"]
    assert set(named) <= targets


@EACH_PAGE
def test_a_verb_that_a_page_names_is_one(page):
    named = set(re.findall(r"`ontick ([a-z]+)[` ]", page.read_text(encoding="utf-8")))
    assert named <= VERBS.keys()


@EACH_PAGE
def test_a_plan_or_a_robot_that_a_page_shows_is_one(page, tmp_path):
    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        data = yaml.safe_load(text)
        if {"name", "grid", "solver"} <= data.keys():
            Plan.from_dict(data)
        elif data.get("kind") in ("lerobot", "rosbridge"):
            file = tmp_path / "robot.yaml"
            file.write_text(text)
            make_robot(file)
            terms_of(str(file))


# -- links -------------------------------------------------------------------------------------------------------------


def prose_of(page: Path) -> str:
    """A page without its fenced code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links_of(page: Path) -> list[tuple[Path, str]]:
    """(file, anchor) of the links that stay in the repository."""
    found = [(target, anchor) for target, anchor in LINK.findall(prose_of(page)) if ":" not in target]
    return [((page.parent / target).resolve() if target else page, anchor) for target, anchor in found]


@EACH_PAGE
def test_every_link_of_a_page_leads_somewhere(page):
    for target, anchor in links_of(page):
        assert target.exists() and target.is_relative_to(ROOT), f"{target} is not there"
        assert not anchor or anchor in anchors_of(target), f"{target} has no heading #{anchor}"


@EACH_PAGE
def test_every_file_that_a_page_names_is_there(page):
    for name in re.findall(r"`((?:benchmarks|configs|docs|assets|tests)/[\w./*-]+)`", page.read_text(encoding="utf-8")):
        placed = any(part.isupper() for part in Path(name).parts)  # FAMILY/TASK
        assert placed or list(ROOT.glob(name)), f"{name} is not there"


def test_every_page_is_found_from_the_index():
    seen, todo = set(), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            todo += [target for target, _ in links_of(page)]
    lost = {str(page.relative_to(ROOT)) for page in PAGES} - {str(page.relative_to(ROOT)) for page in seen}
    assert not lost, "link them from docs/index.md, or from a page that it leads to"


# -- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def background():
    """background(argv, cwd) starts a server and waits until it says that it is ready.

    It gets a Ctrl-C at the end, or when another is started. `background.running` holds it.
    """
    running: list[subprocess.Popen] = []

    def stop() -> None:
        while running:
            process = running.pop()
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def start(argv: list[str], cwd: Path) -> None:
        stop()
        process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "ready at" in line:
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return
        raise AssertionError(f"{argv} ended: {''.join(lines)}")

    start.running = running  # type: ignore[attr-defined]
    yield start
    stop()


def run_quickly(argv: list[str], cwd: Path) -> None:
    """Run a command to its end. A controller whose machine is too busy for its watchdog is tried again."""
    for _ in range(3):
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True)
        if "watchdog" not in done.stderr:
            break
    assert done.returncode == 0, f"{shlex.join(argv)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def linked(source: Path, target: Path) -> None:
    """A copy of the folder to write in, but for the weights, which are links."""

    def copy(file: str, to: str) -> None:
        (os.symlink if file.endswith(".safetensors") else shutil.copy)(file, to)

    shutil.copytree(source, target, copy_function=copy, ignore=shutil.ignore_patterns("__pycache__"))


MAKERS = {path: command for page in reversed(PAGES) for command in commands_of(page) for path in made_by(command)}


def missing(words: list[str], cwd: Path) -> list[Command]:
    """The commands of other pages that make what these words read, where it is not there yet."""
    own = made_by(Command(tuple(words)))
    read = {path for word in words for path in MAKERS if word == path or word.startswith((f"{path}/", f"{path}="))}
    return [MAKERS[path] for path in sorted(read - own) if not (cwd / path).exists()]


def needs(words: list[str]) -> str:
    """What this machine lacks for a command; empty where nothing."""
    text = shlex.join(words)
    if "policy-gpu" in text and not torch.cuda.is_available():
        return "a GPU"
    if "robosuite" in text and importlib.util.find_spec("robosuite") is None:
        return "robosuite: make robosuite"
    if ("Pixels" in text or "clips" in text) and not render_available()[0]:
        return render_available()[1]
    return ""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_of(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run_in_order_and_write_what_they_say(
    page, tmp_path, free_port, background, monkeypatch
):
    monkeypatch.setenv("TOKEN", "a-token-of-the-test")
    for name in ("assets", "benchmarks", "configs"):
        linked(ROOT / name, tmp_path / name)
    lacked = set[str]()

    def run(command: Command) -> None:
        words = command.quick(free_port)
        if words[0] == "make" or words[1] == "convert":
            return
        for earlier in missing(words, tmp_path):
            run(earlier)
        if lack := needs(words):
            lacked.add(lack)
            return
        argv = [sys.executable, *(["-m", *words] if words[0] == "ontick" else words[1:])]
        if words[1] == "serve":
            background(argv, tmp_path)
            return
        if any(word.startswith("ws://") for word in words) and not background.running:
            background([sys.executable, "-m", "ontick", "serve", AVOID, "--port", str(free_port)], tmp_path)
        run_quickly(argv, tmp_path)
        for path in made_by(Command(tuple(words))):
            assert (tmp_path / path).exists() or Path(path).suffix in (".zarr", ".hdf5"), f"{command} made no {path}"

    for command in commands_of(page):
        run(command)
    if lacked:
        pytest.skip(f"the rest ran; lacking: {', '.join(sorted(lacked))}")


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    source = tmp_path / "source"
    subprocess.run([sys.executable, str(DOCS / "stage.py"), str(source)], check=True)
    config = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text()
    config.write_text(text.replace("runs/docs-source", str(source)).replace("runs/docs", str(tmp_path / "site")))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    built = {file.relative_to(tmp_path / "site").with_suffix("") for file in (tmp_path / "site").rglob("*.html")}
    for page in PAGES:
        path = page.relative_to(ROOT).with_suffix("")
        assert (path.with_name("index") if path.name == "README" else path) in built
    for file in (tmp_path / "site").rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?:]+)[#"]', file.read_text()):
            start = tmp_path / "site" if target.startswith("/") else file.parent
            assert (start / target.lstrip("/")).exists(), f"{file} links to {target}"
