"""The task of docs/extend/environment.md: demonstrations are collected of it, a policy is trained on them and plays."""

import sys
import types

import gymnasium
import numpy as np
import pytest

from ontick.diffusion import load_plan
from ontick.envs import TASKS, demonstration_seeds, evaluation_seeds, tasks
from ontick.envs.collection import Recipe, collect
from ontick.envs.disturbances import Disturbance, make_disturbed
from ontick.envs.episodes import play
from ontick.envs.rendering import render_available
from ontick.errors import InputError
from ontick.policy import DiffusionPolicy, TrainingConfig, TransformerConfig, train
from ontick.runtime import Charge, Ledger, load_budget


@pytest.fixture(scope="module")
def task(page):
    """The page's two blocks where it says that they belong: in ontick.envs, and in its table."""
    files = page("environment")
    module = types.ModuleType("ontick.envs.reach")
    module.__package__ = "ontick.envs"
    sys.modules[module.__name__] = module
    exec(compile(files["envs/reach.py"], "envs/reach.py", "exec"), vars(module))
    names = dict(vars(tasks))
    exec(compile(files["envs/tasks.py"], "envs/tasks.py", "exec"), names)
    task = names["REACH"]
    TASKS[task.id] = task
    gymnasium.register(task.id, entry_point=f"ontick.envs.{task.entry_point}", disable_env_checker=True)
    yield task
    del TASKS[task.id], gymnasium.registry[task.id], sys.modules[module.__name__]


@pytest.fixture(scope="module")
def demonstrations(task, tmp_path_factory):
    return collect(Recipe(task.id, episodes=12, styled=True), tmp_path_factory.mktemp("collected") / "partial")


def observations(env, actions, seed) -> np.ndarray:
    trace = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]
    return np.stack(trace)


def test_an_episode_is_decided_by_its_seed_in_a_fresh_environment_as_in_a_used_one(task, rng):
    actions = rng.uniform(-1, 1, (8, 1))
    used, fresh = task.make(), task.make()
    observations(used, actions, seed=3)
    np.testing.assert_array_equal(observations(used, actions, seed=5), observations(fresh, actions, seed=5))
    assert not np.array_equal(used.reset(seed=5)[0], used.reset(seed=6)[0])


def test_an_action_that_is_no_number_is_refused(task):
    env = task.make()
    env.reset(seed=0)
    for action in (np.array([np.nan]), np.zeros(2)):
        with pytest.raises(InputError, match="wanted 1 finite number"):
            env.step(action)


def test_the_expert_succeeds_and_its_demonstrations_have_the_task_s_widths(task, demonstrations):
    assert len(demonstrations) == 12 and not demonstrations.attributes["failed_seeds"]
    assert demonstrations.observations.shape[1] == task.observation_dim
    assert demonstrations.actions.shape[1] == task.action_dim and np.abs(demonstrations.actions).max() <= 1
    assert not set(demonstration_seeds(0, 12)) & set(evaluation_seeds(0, 12))


def test_styles_differ_and_the_plain_expert_is_one(task):
    seen = np.array([0.0, 0.0, 0.3])
    styled = {float(task.expert(np.random.default_rng(seed))(seen)[0]) for seed in range(5)}
    assert len(styled) == 5 and task.expert()(seen) == task.expert()(seen)


def test_a_push_moves_the_cart_once(task):
    env = make_disturbed(task, Disturbance.parse("push=0.05"))
    env.reset(seed=2)
    still = np.zeros(1, np.float32)
    told = [env.step(still)[-1]["disturbed"] for _ in range(45)]
    assert not told[0] and told[-1]


def test_it_is_drawn_where_frames_can_be_drawn(task):
    available, reason = render_available()
    if not available:
        pytest.skip(reason)
    env = task.make(render=True, width=64, height=48)
    env.reset(seed=0)
    frame = env.render()
    env.close()
    assert frame.shape == (48, 64, 3) and frame.std() > 5


def test_a_policy_that_is_trained_on_it_plays_it(task, demonstrations):
    widths = {"observation_dim": task.observation_dim, "action_dim": task.action_dim}
    shape = {"horizon": 8, "n_action_steps": 4, "width": 32, "layers": 1, "heads": 2, "p_drop_attn": 0.0}
    network = TransformerConfig(**widths, **shape)
    d = demonstrations
    training = TrainingConfig(steps=150, batch=32, lr=4e-3, warmup=20)
    checkpoint = train(d.observations, d.actions, d.episode_ends, network, training)
    policy = DiffusionPolicy(checkpoint, load_plan("ddim-4"), 4)
    envs = [task.make() for _ in range(4)]
    seeds = iter(enumerate(evaluation_seeds(0, 8)))
    played = list(play(task, policy, envs, seeds, load_budget("cpu-20hz"), [Charge.none()], Ledger()))
    assert len(played) == 8
    assert sum(episode.success for episode in played) > 4, [e.success for e in played]
