"""Drafts: a bank of demonstrations, a regression, and the policy whose chunks are born from them.

Legend: L lanes asked, To, Ta, Da, Do; Th = Tp - To + 1.
"""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ontick.diffusion import GridSpec, GuessSpec, Plan, build, load_plan, run_chunk
from ontick.errors import InputError
from ontick.policy import Checkpoint, Normaliser, load_checkpoint, save_checkpoint, serve
from ontick.policy.draft_policy import DraftPolicy
from ontick.policy.drafts import FILE, Drafts
from ontick.policy.training import Windows, window_frames

NEAREST, REGRESSION = load_plan("draft-3"), load_plan("draft-regression-3")
AS_IT_IS = Plan(
    name="as-it-is", grid=GridSpec(steps=2, entry=1), solver="ddim", birth="guess", guess=GuessSpec(source="nearest")
)


@pytest.fixture
def windows(toy_data, tiny_config):
    """Training windows of the toy data, normalised, and the normaliser."""
    observations, actions, ends = toy_data
    normaliser = Normaliser.fit(observations, actions)
    frame = torch.from_numpy(window_frames(ends, tiny_config()))
    obs = normaliser.normalise("obs", torch.from_numpy(observations))
    return Windows(obs, normaliser.normalise("action", torch.from_numpy(actions)), frame), normaliser


@pytest.fixture
def fitted(windows, tiny_config):
    def fit(**given) -> Drafts:
        return Drafts.fit(windows[0], tiny_config(), windows[1], **{"steps": 20, **given})

    return fit


@pytest.fixture
def folder(windows, fitted, tiny_config, random_network, tmp_path):
    """A checkpoint of a random network in the units of the toy data, with its drafts."""
    save_checkpoint(tmp_path / "policy", Checkpoint(random_network(tiny_config()), windows[1]))
    fitted().save(tmp_path / "policy")
    return tmp_path / "policy"


def observations(lanes):
    """[lanes, 2, 3], the same for a lane whatever the number of lanes."""
    return np.stack([np.random.default_rng([0, lane]).normal(size=(2, 3)) for lane in lanes]).astype("f4")


def answers(policy, lanes):
    policy.reset(lanes, [100 + lane for lane in lanes])
    return policy.predict_with_tail(observations(lanes), lanes)


# -- drafts -----------------------------------------------------------------------------------------------------------


def test_a_window_of_the_bank_is_nearest_to_itself(windows, fitted, tiny_config):
    drafts = fitted()
    obs, chunks = windows[0].batch(torch.arange(0, len(windows[0].frame), 7), tiny_config())
    assert len(drafts.chunks) == len(windows[0].frame)
    assert (drafts.nearest(obs) - chunks).abs().max() < 0.05  # the toy's frames are 0.1 of its phase apart


def test_row_first_row_of_a_draft_belongs_to_the_newest_observation(windows, fitted, tiny_config, random_network):
    """The toy's action is 2 sin and 5 + cos of the phase that the observation shows."""
    first, normaliser = random_network(tiny_config()).first_row, windows[1]
    assert first == 1
    obs, _ = windows[0].batch(torch.arange(10, 30), tiny_config())
    newest = normaliser.unnormalise("obs", obs[:, -1])
    for drafted in (fitted().nearest, fitted(steps=400).regressed):
        action = normaliser.unnormalise("action", drafted(obs)[:, first])
        assert torch.allclose(action[:, 0] / 2, newest[:, 1], atol=0.1)
        assert torch.allclose(action[:, 1] - 5, newest[:, 0], atol=0.1)


def test_the_newest_observation_alone_decides_which_is_nearest(fitted):
    drafts, obs = fitted(), torch.from_numpy(observations(range(4)))
    older = obs.clone()
    older[:, 0] = 0
    assert torch.equal(drafts.nearest(obs), drafts.nearest(older))
    assert not torch.equal(drafts.regressed(obs), drafts.regressed(older))


def test_a_small_bank_is_spread_from_the_first_window_to_the_last(windows, fitted, tiny_config):
    obs, _ = windows[0].batch(torch.tensor([0, len(windows[0].frame) - 1]), tiny_config())
    drafts = fitted(bank=5)
    assert drafts.observations.shape == (5, 3) and drafts.chunks.shape == (5, 8, 2)
    assert torch.equal(drafts.observations[[0, -1]], obs[:, -1].half().float())
    for bank in (0, 2049):
        with pytest.raises(InputError, match="wanted 1 to 2048"):
            fitted(bank=bank)


def test_a_fit_repeats_by_its_seed_and_leaves_torchs_generator_alone(fitted):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = fitted(seed=1), fitted(seed=1), fitted(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.regression[0].weight, other.regression[0].weight)


def test_what_is_loaded_is_what_was_saved_bit_for_bit(fitted, tmp_path):
    drafts = fitted(about={"seed": 0})
    assert drafts.save(tmp_path) == tmp_path / FILE
    loaded = Drafts.load(tmp_path)
    assert loaded.about == {"seed": 0} and loaded.normaliser == drafts.normaliser
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in drafts.state_dict().items())
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / FILE).values())
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert Drafts.load(drafts.save(tmp_path / "other.safetensors")).about == {"seed": 0}


def test_what_holds_no_drafts_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no drafts.safetensors.*calibrate CHECKPOINT --plan draft-3 --data"):
        Drafts.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no drafts"):
        Drafts.load(tmp_path)
    save_file({"observations": torch.zeros(2, 3)}, tmp_path / FILE)
    with pytest.raises(InputError, match="holds no drafts"):
        Drafts.load(tmp_path)


# -- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [NEAREST, REGRESSION])
def test_a_draft_plan_is_served_from_the_folder(folder, plan):
    policy = serve(load_checkpoint(folder), plan, 4)
    assert isinstance(policy, DraftPolicy) and policy.calls_per_chunk == 3
    assert answers(policy, [0, 1, 2]).shape == (3, 7, 2)


@pytest.mark.parametrize("plan", [NEAREST, REGRESSION])
def test_the_chunk_is_the_programs_from_that_draft(folder, plan):
    checkpoint = load_checkpoint(folder)
    policy = serve(checkpoint, plan, 2)
    obs = checkpoint.normaliser.normalise("obs", torch.from_numpy(observations([0, 1])))
    draft = getattr(policy.drafts, "nearest" if plan is NEAREST else "regressed")(obs)
    program = policy.program
    chunk = run_chunk(program, program.prepare(obs), torch.tensor([100, 101]), torch.tensor([0, 0]), draft)
    assert np.array_equal(answers(policy, [0, 1]), checkpoint.normaliser.unnormalise("action", chunk[:, 1:]).numpy())


@pytest.mark.parametrize("plan", [NEAREST, REGRESSION])
def test_a_lanes_chunk_does_not_depend_on_who_else_is_served(folder, plan):
    policy = serve(load_checkpoint(folder), plan, 4)
    together = answers(policy, [0, 1, 2, 3, 4])
    assert np.array_equal(answers(policy, [3])[0], together[3])
    assert np.array_equal(answers(policy, [4, 1])[1], together[1])


def test_with_an_oracle_every_draft_becomes_the_truth(folder, oracle):
    truth = torch.from_numpy(np.random.default_rng(1).uniform(-0.9, 0.9, (8, 2)))
    checkpoint = load_checkpoint(folder)
    for plan in (NEAREST, REGRESSION, AS_IT_IS):
        policy = serve(checkpoint, plan, 2, lambda network, *given: build(oracle(truth), *given))
        wanted = checkpoint.normaliser.unnormalise("action", truth[1:].float())
        assert np.allclose(answers(policy, [0, 1]), wanted.numpy(), atol=1e-4)


def test_plans_without_a_draft_and_checkpoints_without_a_folder_are_refused(folder, random_checkpoint):
    checkpoint = load_checkpoint(folder)
    with pytest.raises(InputError, match="starts from previous, this policy from a draft"):
        DraftPolicy(checkpoint, load_plan("rti-2"))
    assert checkpoint.folder == folder and random_checkpoint().folder is None
    with pytest.raises(InputError, match="save it and load it again"):
        serve(random_checkpoint(), NEAREST)


def test_drafts_of_another_checkpoint_are_refused(folder, random_checkpoint, tiny_config):
    drafts = Drafts.load(folder)
    with pytest.raises(InputError, match="units of another checkpoint's normaliser"):
        drafts.check(random_checkpoint())
    with pytest.raises(InputError, match="drafts of shapes"):
        drafts.check(random_checkpoint(tiny_config(horizon=16)))
    (folder / FILE).unlink()
    with pytest.raises(InputError, match="calibrate CHECKPOINT --plan draft-3 --data DEMOS"):
        serve(load_checkpoint(folder), dataclasses.replace(NEAREST, name="other"))
