"""Draw the pictures of the task cards into docs/tasks: scenes, and on Avoid the ways of experts and of plans.

python benchmarks/task_pictures.py             # all; needs OpenGL
python benchmarks/task_pictures.py avoid       # one card
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.envs import avoid_pixels, demonstration_seeds, evaluation_seeds, find_task
from ontick.envs.avoid import GOAL_Y_M, OBSTACLE_RADIUS_M, WALL_X_M, nominal_obstacles
from ontick.envs.collection import Recipe, expert_of, record_episode
from ontick.envs.episodes import play
from ontick.envs.tasks import Expert
from ontick.runtime import Charge, Ledger, load_budget

CARDS = {
    "avoid": "ontick/Avoid-v0",
    "pick-place": "metaworld/pick-place-v3",
    "peg-insert-side": "metaworld/peg-insert-side-v3",
    "drawer-open": "metaworld/drawer-open-v3",
    "push-t": "ontick/PushT-v0",
    "avoid-pixels": "ontick/AvoidPixels-v0",
    "lift": "robosuite/Lift",
    "can": "robosuite/PickPlaceCan",
}
OUT = Path(__file__).resolve().parent.parent / "docs" / "tasks"
SIZE, FRAMES, WAYS = 320, 4, 64
MODES = [a + b + c for a in "LR" for b in "LR" for c in "LR"]


def scene(task_id: str, seed: int, size: int = SIZE, **camera: str) -> np.ndarray:
    """Frames of an expert's episode side by side, from its start to its end, drawn `size` wide and enlarged.
    uint8 [SIZE, FRAMES * SIZE, 3]"""
    task = find_task(task_id)
    env = task.make(render=True, width=size, height=size, **camera)
    steps = sum(1 for _ in _expert_steps(env, task.expert(), seed))
    picked = np.linspace(0, steps - 1, FRAMES).round().astype(int)  # drawing is slow, so the episode is played twice
    frames = [env.render() for step, _ in enumerate(_expert_steps(env, task.expert(), seed)) if step in picked]
    env.close()
    return np.concatenate(frames, axis=1).repeat(SIZE // size, axis=0).repeat(SIZE // size, axis=1)


def _expert_steps(env: Any, expert: Expert, seed: int) -> Iterator[None]:
    """Yields before the first step and after each."""
    (observation, info), done = env.reset(seed=seed), False
    yield
    while not done:
        observation, _, terminated, truncated, info = env.step(expert(info.get("expert_observation", observation)))
        done = terminated or truncated
        yield


def expert_ways() -> Iterator[tuple[np.ndarray, str]]:
    """(tool places [t, 2] m, mode) of demonstrations as they are collected for training."""
    task = find_task(CARDS["avoid"])
    env, recipe = task.make(stop_on_success=False), Recipe(task.id, WAYS, styled=True)
    for seed in demonstration_seeds(0, WAYS):
        episode = record_episode(env, expert_of(recipe, seed), task, recipe, seed)
        yield episode.observations[:, :2], episode.mode or ""
    env.close()


def plan_ways(plan: str) -> Iterator[tuple[np.ndarray, str]]:
    """The same of the shipped policy under a plan; the mode of a failure is ""."""
    task, candidate = find_task(CARDS["avoid"]), parse_candidate(plan)
    policy = policy_maker(candidate, checkpoint_for(task.id, candidate, None))(1)
    budget, env, places = load_budget("cpu-20hz"), task.make(), []
    for seed in evaluation_seeds(0, WAYS):
        places.clear()
        shoot = lambda env: places.append(env.unwrapped.tool_m)  # noqa: E731
        episode = next(play(task, policy, [env], iter([(0, seed)]), budget, Charge.none(), Ledger(), shoot))
        yield np.stack(places), (episode.mode or "") if episode.success else ""
    env.close()


def draw_ways(path: Path) -> None:
    """The scene, the ways of demonstrations and of the shipped policy under two plans."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    env = find_task(CARDS["avoid"]).make(render=True, width=512, height=512)
    env.reset(seed=1)
    frame = env.render()
    env.close()
    panels = {"demonstrations": list(expert_ways())} | {plan: list(plan_ways(plan)) for plan in ("ddpm-100", "ddim-2")}
    width = 1 + len(panels)
    figure, (first, *axes) = pyplot.subplots(1, width, figsize=(3.25 * width, 4.6), constrained_layout=True)
    first.imshow(frame)
    first.set_axis_off()
    first.set_title("the scene")
    for axis, (title, ways) in zip(axes, panels.items(), strict=True):
        _panel(axis, title, ways)
    figure.savefig(path, dpi=90)


def _panel(axis, title: str, ways: list[tuple[np.ndarray, str]]) -> None:
    from matplotlib.patches import Circle

    for places_m, mode in ways:
        colour = f"C{MODES.index(mode)}" if mode in MODES else "black"
        axis.plot(*places_m.T, color=colour, linewidth=0.8, alpha=0.75)
        if mode not in MODES:
            axis.plot(*places_m[-1], "x", color="black", markersize=5)
    for place_m in nominal_obstacles():
        axis.add_patch(Circle(tuple(place_m), OBSTACLE_RADIUS_M, color="0.75"))
    axis.axhline(GOAL_Y_M, color="tab:green", linewidth=2)
    passed = sum(mode in MODES for _, mode in ways)
    axis.set(xlim=(-WALL_X_M, WALL_X_M), ylim=(-0.08, GOAL_Y_M + 0.05), aspect="equal", xlabel="x [m]")
    axis.set_title(f"{title}: {passed} of {len(ways)} pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="*", help=f"of {', '.join(CARDS)} (default: all)")
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for card in parser.parse_args().cards or CARDS:
        path = OUT / f"{card}.png"
        if card == "avoid":
            draw_ways(path)
        else:
            from PIL import Image

            views: list[dict[str, Any]] = [{}]
            if card == "avoid-pixels":  # what its policy sees stands below
                views += [{"size": avoid_pixels.SIZE, "camera": avoid_pixels.CAMERA}]
            Image.fromarray(np.concatenate([scene(CARDS[card], seed=1, **view) for view in views])).save(path)
        print(path.relative_to(OUT.parent.parent))


if __name__ == "__main__":
    main()
