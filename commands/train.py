"""Train a policy on demonstrations: a diffusion transformer (EMA, published defaults), its streaming form, an anchored
decoder, robomimic's BC or BC-RNN; or a video network on clips."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..files import check_place
from ..settings import checked
from .families import ANCHORED, DIFFUSION, STREAMING, UNET, check_device
from .progress import progress_bar

VIDEO = "video"
DEFAULT_PRESETS = {
    "diffusion": "diffusion-policy",
    "unet": "unet",
    "streaming": "streaming",
    "anchored": "anchored",
    VIDEO: "video",
}
FAMILIES = {"diffusion": DIFFUSION, "unet": UNET, "streaming": STREAMING, "anchored": ANCHORED}
ROBOMIMIC_STEPS = {"bc": 4000, "bc-rnn": 4000}
PARTS = ("network", "training")
OWN = ("observation_dim", "action_dim", "seed", "size", "channels")  # these come from the data and the command line
PRESETS = Path(__file__).resolve().parent.parent / "configs" / "training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", required=True, help="demonstrations: a .zarr folder or a robomimic .hdf5 file; of video: clips, .zarr"
    )
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument(
        "--algorithm",
        choices=(*DEFAULT_PRESETS, *ROBOMIMIC_STEPS),
        default="diffusion",
        help="bc and bc-rnn are robomimic's",
    )
    parser.add_argument("--preset", help="a name in configs/training or a YAML file (default: the algorithm's)")
    parser.add_argument(
        "--obs-keys",
        metavar="A,B",
        help="what is observed, of a file of others: its keys, side by side (default: the usual)",
    )
    parser.add_argument("--filter", metavar="MASK", help="a mask of the .hdf5: only its demonstrations, such as train")
    parser.add_argument("--begin-from", metavar="DIR", help="checkpoint whose weights and normaliser are begun with")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a preset's setting")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and noise")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")


def run(options: argparse.Namespace) -> None:
    import torch

    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads is {options.threads}, wanted at least 1")
        torch.set_num_threads(options.threads)
    check_device(options.device)
    if (options.obs_keys or options.filter) and options.algorithm == VIDEO:
        raise InputError(f"--obs-keys and --filter are for policies, got --algorithm {options.algorithm}")
    out = check_place(options.out)
    if out.exists():
        raise InputError(f"{out} is already there; choose another --out or remove it")
    if options.algorithm in ROBOMIMIC_STEPS:
        _train_robomimic(options, out)
    elif options.algorithm == VIDEO:
        options.preset = options.preset or DEFAULT_PRESETS[VIDEO]
        _train_video(options, load_preset(options.preset, options.set, VIDEO), out)
    else:
        options.preset = options.preset or DEFAULT_PRESETS[options.algorithm]
        _train_diffusion(options, load_preset(options.preset, options.set, options.algorithm), out)
    print(f"checkpoint: {out}")


def load_preset(name: str, overrides: list[str], algorithm: str = "diffusion") -> dict[str, dict[str, Any]]:
    """{network: {...}, training: {...}} of a preset, with KEY=VALUE overrides; unknown keys raise InputError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PRESETS.iterdir())
        raise InputError(f"no training preset {name!r}; known: {', '.join(known)}, or a YAML file")
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or not set(settings) <= set(PARTS):
        raise InputError(f"preset {name!r}: wanted a mapping with {' and '.join(PARTS)}")
    for item in overrides:
        key, equals, value = item.partition("=")
        part = next((p for p in PARTS if key in _names(p, algorithm)), None)
        if not equals or part is None:
            known = ", ".join(name for p in PARTS for name in _names(p, algorithm))
            raise InputError(f"--set {item}: wanted KEY=VALUE with one of {known}")
        try:
            settings[part] = {**(settings.get(part) or {}), key: yaml.safe_load(value)}
        except yaml.YAMLError:
            raise InputError(f"--set {item}: {value!r} is no YAML value") from None
    return {p: checked(_kind(p, algorithm), settings.get(p) or {}, f"preset {name!r}, {p}", OWN) for p in PARTS}


def _kind(part: str, algorithm: str) -> type:
    if algorithm == VIDEO:
        from ..video import VideoConfig, VideoTrainingConfig

        return VideoTrainingConfig if part == "training" else VideoConfig
    from ..policy import NETWORKS, TrainingConfig

    return TrainingConfig if part == "training" else NETWORKS[FAMILIES[algorithm]][1]


def _names(part: str, algorithm: str) -> list[str]:
    return [f.name for f in fields(_kind(part, algorithm)) if f.name not in OWN]


def _train_diffusion(options: argparse.Namespace, settings: dict[str, dict[str, Any]], out: Path) -> None:
    from ..envs.action_units import action_units
    from ..envs.columns import parse_columns
    from ..envs.dataset import read_demonstrations
    from ..envs.dataset_report import report
    from ..policy import NETWORKS, TrainingConfig, load_checkpoint, save_checkpoint, train

    columns = None if options.obs_keys is None else parse_columns(options.obs_keys)
    data = read_demonstrations(options.data, columns, options.filter)
    print("\n".join(report(data)))
    task_id = data.attributes.get("task")
    unfitted_dims, discrete_dims = action_units(data.attributes, data.actions.shape[1])
    widths = {"observation_dim": data.observations.shape[1], "action_dim": data.actions.shape[1]}
    family, kind = NETWORKS[FAMILIES[options.algorithm]]
    network = kind(**widths, **settings["network"])
    lessons = network.lessons
    training = TrainingConfig(seed=options.seed, **settings["training"])
    state = out.parent / f"{out.name}.state"
    if task_id is None and not discrete_dims:
        print(f"{options.data} names no task: no action is scaled as a gripper")
    print(
        f"{task_id or options.data}: {len(data)} episodes, {len(data.actions)} frames; preset {options.preset}: "
        f"{network.shape}, {training.steps} steps of batch {training.batch}"
        + (f", after {lessons} lessons of its cameras" if lessons else "")
    )
    with progress_bar(lessons + training.steps, str(out), "step") as bar:
        checkpoint = train(
            data.observations,
            data.actions,
            data.episode_ends,
            network,
            training,
            family=family,
            begin_from=None if options.begin_from is None else load_checkpoint(options.begin_from, options.device),
            unfitted_dims=unfitted_dims,
            discrete_dims=discrete_dims,
            state_file=state,
            about={
                "task": task_id,
                "data": data.attributes,
                "preset": options.preset,
                "discrete_dims": list(discrete_dims),
            },
            device=options.device,
            progress=_shown_on(bar, first=-lessons),
        )
    save_checkpoint(out, checkpoint)
    state.unlink(missing_ok=True)


def _train_video(options: argparse.Namespace, settings: dict[str, dict[str, Any]], out: Path) -> None:
    from ..video import VideoConfig, VideoTrainingConfig, read_clips, save_video_checkpoint, train_video
    from ..video.training import window_starts

    if options.begin_from:
        raise InputError("--begin-from is for policies; a killed video run goes on by the same command")
    clips = read_clips(options.data)
    size, channels = clips.frames.shape[1], clips.frames.shape[3]
    own = {"size": size, "channels": channels, "action_dim": clips.actions.shape[1]}
    if clips.kind != "rgb":
        settings["network"].setdefault("clip", None)
    network = VideoConfig(**own, **settings["network"])
    window_starts(clips, network)  # refuses clips that do not fit, before anything is shown
    training = VideoTrainingConfig(seed=options.seed, **settings["training"])
    state = out.parent / f"{out.name}.state"
    print(
        f"{options.data}: {len(clips)} episodes, {len(clips.frames)} frames of {size} px; preset {options.preset}: "
        f"width {network.width}, {network.layers} layers, {training.steps} steps of batch {training.batch}"
    )
    scene = {"scene": clips.attributes.get("scene"), "fps": clips.attributes.get("fps")}
    with progress_bar(training.steps, str(out), "step") as bar:
        checkpoint = train_video(
            clips,
            network,
            training,
            state_file=state,
            about={**scene, "data": clips.attributes, "preset": options.preset},
            device=options.device,
            progress=_shown_on(bar),
        )
    save_video_checkpoint(out, checkpoint)
    state.unlink(missing_ok=True)


def _train_robomimic(options: argparse.Namespace, out: Path) -> None:
    from ..envs.columns import parse_columns
    from ..envs.dataset import read_demonstrations
    from ..envs.dataset_report import report
    from ..envs.robomimic_bc import train_bc
    from ..envs.robomimic_bc_rnn import train_bc_rnn

    name, steps = options.algorithm, ROBOMIMIC_STEPS[options.algorithm]
    if options.preset or options.begin_from or options.device != "cpu":
        raise InputError(
            f"--algorithm {name} trains robomimic's network on the CPU; --preset, --begin-from and --device are for "
            "the others"
        )
    for item in options.set:
        key, _, value = item.partition("=")
        if key != "steps" or not value.isdecimal() or int(value) < 1:
            raise InputError(f"--set {item}: wanted steps=N; the rest of --algorithm {name} is robomimic's")
        steps = int(value)
    columns = None if options.obs_keys is None else parse_columns(options.obs_keys)
    demonstrations = read_demonstrations(options.data, columns, options.filter)
    print("\n".join(report(demonstrations)))
    train = {"bc": train_bc, "bc-rnn": train_bc_rnn}[name]
    with progress_bar(steps, str(out), "step") as bar:
        policy = train(demonstrations, steps, options.seed, on_step=_shown_on(bar, first=1))
    policy.save(out)


def _shown_on(bar: Any, first: int = 0) -> Callable[[int, float], None]:
    """A `progress(step, loss)` that moves the bar and shows a running mean of the loss."""
    recent: list[float] = []

    def progress(step: int, loss: float) -> None:
        if step == 0:
            recent.clear()  # the lessons of cameras have a loss of their own
        recent.append(loss)
        del recent[:-100]
        bar.update(step + 1 - first - bar.n)
        if step % 20 == 0:
            bar.set_postfix_str(f"loss {sum(recent) / len(recent):.4f}", refresh=False)

    return progress
