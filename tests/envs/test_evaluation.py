"""Evaluation gives the same result for any number of workers, lanes and neighbours."""

import gymnasium
import numpy as np
import pytest

from ontick.envs import evaluation_seeds, find_task
from ontick.envs.disturbances import Disturbance, make_disturbed
from ontick.envs.episodes import play as play_here
from ontick.envs.evaluation import Evaluator, Job
from ontick.errors import InputError, RunFailed
from ontick.runtime import Charge, Ledger, load_budget

TASK = "metaworld/reach-v3"
BUDGET = load_budget("cpu-20hz")


class ExpertInChunks:
    """The scripted expert's action for the newest observation, repeated for a chunk, with seeded noise a chunk."""

    n_obs_steps, n_action_steps, observation_dim, action_dim, calls_per_chunk = 2, 3, 39, 4, 5

    def __init__(self, width, noise=0.3):
        self.width, self.noise, self.expert = width, noise, find_task(TASK).expert()
        self.seed, self.chunks = {}, {}

    def reset(self, lanes, seeds):
        for lane, seed in zip(lanes, seeds, strict=True):
            self.seed[lane], self.chunks[lane] = seed, 0

    def predict_with_tail(self, obs, lanes):
        rows = []
        for window, lane in zip(obs, lanes, strict=True):
            rng = np.random.default_rng([self.seed[lane], self.chunks[lane]])
            self.chunks[lane] += 1
            rows.append(np.repeat(self.expert(window[-1])[None], 5, 0) + self.noise * rng.standard_normal((5, 4)))
        return np.array(rows, dtype=np.float32)

    def predict_action_chunk(self, obs, lanes):
        return self.predict_with_tail(obs, lanes)[:, :3]

    def select_action(self, obs):
        return self.predict_action_chunk(obs[:, None].repeat(2, 1), range(len(obs)))[:, 0]


def sends_nan(width):
    policy = ExpertInChunks(width)
    policy.noise = np.nan
    return policy


def is_too_narrow(width):
    policy = ExpertInChunks(width)
    policy.observation_dim = 20
    return policy


def breaks(width):
    raise ZeroDivisionError("by a test")


def play(workers, episodes=10, charge=None, make_policy=ExpertInChunks):
    job = Job(TASK, make_policy, tuple(evaluation_seeds(5, episodes)), BUDGET, charge or Charge.none())
    with Evaluator(workers) as evaluator:
        return evaluator.run(job)


def test_one_and_two_workers_give_identical_episodes():
    charge = Charge([0.01, 0.08, 0.2])
    one, ledger_one = play(1, charge=charge)
    two, ledger_two = play(2, charge=charge)
    assert one == two and [e.index for e in one] == list(range(10))
    assert len({e.steps for e in one}) > 1, "episodes that differ, or the test says little"
    assert ledger_one.summary()["counters"] == ledger_two.summary()["counters"]


def test_charged_latency_holds_the_robot_and_free_answers_do_not():
    free, _ = play(1, episodes=4)
    slow, ledger = play(1, episodes=4, charge=Charge([0.3]))
    assert all(e.counts["held"] == e.counts["rest"] == 0 for e in free)
    assert all(e.counts["held"] > 0 and e.counts["rest"] > 0 for e in slow)
    assert sum(e.steps for e in slow) > sum(e.steps for e in free)
    assert ledger.counter("misses") == sum(e.counts["chunks"] for e in slow)


def test_counts_add_up():
    episodes, _ = play(1, episodes=4, charge=Charge([0.1]))
    for e in episodes:
        assert e.steps == e.counts["answers"] + e.counts["rest"] + e.counts["held"]
        assert e.counts["network_calls"] == 5 * e.counts["chunks"] and e.counts["starved"] == e.counts["held"]


def test_a_policy_that_answers_nan_is_refused_with_lane_and_seed():
    with pytest.raises(InputError, match=r"seed .* NaN"):
        play(1, make_policy=sends_nan)


def test_a_policy_for_other_observations_is_refused():
    with pytest.raises(InputError, match="39 observations"):
        play(1, make_policy=is_too_narrow)


def test_a_worker_that_breaks_ends_the_run_and_says_why():
    with pytest.raises(RunFailed, match="by a test"):
        play(2, make_policy=breaks)


def test_no_workers_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        Evaluator(0)


def test_an_evaluator_whose_job_failed_takes_no_other():
    good = Job(TASK, ExpertInChunks, tuple(evaluation_seeds(5, 2)), BUDGET)
    with Evaluator(2) as evaluator:
        evaluator.run(good)
        with pytest.raises(InputError):
            evaluator.run(Job("metaworld/raech-v3", ExpertInChunks, good.seeds, BUDGET))
        with pytest.raises(RunFailed, match="earlier job"):
            evaluator.run(good)


def test_disturbed_episodes_are_those_of_their_seeds_whatever_was_played_before():
    seeds = tuple(evaluation_seeds(5, 6))
    disturbance = Disturbance.parse("push,delay,drop=0.3")
    plain, disturbed = (Job(TASK, ExpertInChunks, seeds, BUDGET, disturbance=d) for d in (Disturbance(), disturbance))
    with Evaluator(2) as evaluator:
        first, again, without = (evaluator.run(job)[0] for job in (disturbed, disturbed, plain))
    task = find_task(TASK)
    env = make_disturbed(task, disturbance)
    here = list(play_here(task, ExpertInChunks(1), [env], iter(enumerate(seeds)), BUDGET, Charge.none(), Ledger()))
    env.close()
    assert first == again == here and first != without


class WithModes(gymnasium.Wrapper):
    """Tells a mode and a clearance, as a task with several ways round obstacles does, and what is covered."""

    def step(self, action):
        *rest, info = self.env.step(action)
        return *rest, {**info, "mode": "LRL"[: int(info["success"]) + 2], "clearance_m": 0.004, "max_coverage": 0.7}


def test_an_episode_tells_the_mode_and_clearance_of_its_last_step_where_the_task_does():
    task = find_task(TASK)
    seeds = list(enumerate(evaluation_seeds(5, 2)))

    def played(env):
        return list(play_here(task, ExpertInChunks(1), [env], iter(seeds), BUDGET, Charge.none(), Ledger()))

    env = task.make()
    assert all((e.mode, e.clearance_m, e.max_coverage) == (None, None, None) for e in played(env))
    told = played(WithModes(env))
    assert all(e.mode == ("LRL" if e.success else "LR") and e.clearance_m == 0.004 for e in told)
    assert all(e.max_coverage == 0.7 for e in told)
    env.close()
