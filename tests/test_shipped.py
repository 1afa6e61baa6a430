"""What is shipped does what it says. The slow tests play whole evaluations."""

from pathlib import Path

import pytest

from ontick.commands.families import ASSETS, checkpoint_for, parse_candidate, policy_maker
from ontick.envs import evaluation_seeds, find_task
from ontick.envs.episodes import check_fit
from ontick.envs.evaluation import Evaluator, Job
from ontick.policy import load_checkpoint
from ontick.runtime import load_budget, wilson_interval

PICK_PLACE = "metaworld/pick-place-v3"


def weight_files() -> list[Path]:
    return sorted(ASSETS.rglob("*.safetensors"))


def test_weights_are_small_enough_to_ship():
    sizes = [path.stat().st_size for path in weight_files()]
    assert sizes and max(sizes) <= 20e6 and sum(sizes) <= 60e6


@pytest.mark.parametrize("plan", ["ddpm-100", "robomimic-bc"])
def test_a_shipped_policy_fits_its_task(plan):
    candidate = parse_candidate(plan)
    policy = policy_maker(candidate, checkpoint_for(PICK_PLACE, candidate, None))(1)
    check_fit(find_task(PICK_PLACE), policy)


def test_the_shipped_policy_tells_its_training_and_its_gripper_is_scaled():
    checkpoint = load_checkpoint(checkpoint_for(PICK_PLACE, parse_candidate("ddim-10"), None))
    shown = set(checkpoint.about["data"]["seeds"])
    assert len(shown) == 200 and shown.isdisjoint(evaluation_seeds(0, 1000))
    assert checkpoint.about["task"] == PICK_PLACE and checkpoint.about["preset"] == "cpu-small"
    scale = checkpoint.normaliser.action_scale
    assert scale[3] < 0.25 * scale[:3].min()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("plan", ["ddpm-100", "ddim-10"])
def test_the_shipped_policy_succeeds_in_95_percent_of_200_episodes(plan):
    candidate = parse_candidate(plan)
    maker = policy_maker(candidate, checkpoint_for(PICK_PLACE, candidate, None))
    with Evaluator(2) as evaluator:
        episodes, _ = evaluator.run(Job(PICK_PLACE, maker, tuple(evaluation_seeds(1, 200)), load_budget("cpu-20hz")))
    assert wilson_interval(sum(e.success for e in episodes), 200)[0] > 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_policy_plays_the_same_episodes_with_1_and_2_workers():
    candidate = parse_candidate("ddim-2")
    maker = policy_maker(candidate, checkpoint_for(PICK_PLACE, candidate, None))
    job = Job(PICK_PLACE, maker, tuple(evaluation_seeds(0, 100)), load_budget("cpu-20hz"))
    played = []
    for workers in (1, 2):
        with Evaluator(workers) as evaluator:
            played.append(evaluator.run(job)[0])
    assert played[0] == played[1]
