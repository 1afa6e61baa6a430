"""The U-Net is the published one: its keys, its numbers, and as a stream of blocks the same again.

Legend: B lanes, N action rows, C channels, n places of a level.
"""

import copy

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching import cached
from ontick.diffusion import Block, load_plan, run_chunk
from ontick.errors import InputError
from ontick.policy import Checkpoint, ConditionalUnet1D, DiffusionPolicy, UNetConfig, load_checkpoint, save_checkpoint

SMALL = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_action_steps": 4, "step_width": 16, "groups": 4}
SHAPES = {
    "three levels": UNetConfig(**SMALL, down_dims=(8, 16, 32)),
    "two levels, shifted alone": UNetConfig(**SMALL, down_dims=(16, 8), film_scale=False, kernel_size=3),
    "four levels": UNetConfig(**SMALL, down_dims=(8, 16, 32, 64)),
    "levels of one width": UNetConfig(**SMALL, down_dims=(16, 16, 16)),
}


@pytest.fixture(scope="module")
def network(random_network):
    return lambda config, seed=0: random_network(config, seed, ConditionalUnet1D)


def inputs(config, lanes, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(lanes, config.horizon, config.action_dim, generator=g)
    return x, torch.randn(lanes, config.n_obs_steps, config.observation_dim, generator=g)


def as_published(network, x, label, obs):
    """The forward pass as a U-Net is written: down with skips kept, through the middle, up with skips beside."""
    known = torch.full((len(x),), float(label))[:, None] * network._frequency
    known = network.diffusion_step_encoder(torch.cat([known.sin(), known.cos()], -1))
    known = torch.cat([known, obs.flatten(1)], -1)

    def residual(block, y):
        told = block.cond_encoder(known)[:, :, None]
        h = block.blocks[0](y)
        if network.config.film_scale:
            C = h.shape[1]
            h = told[:, :C] * h + told[:, C:]
        else:
            h = h + told
        return block.blocks[1](h) + block.residual_conv(y)

    h, skips = x.transpose(1, 2), []
    for first, second, down in network.down_modules:
        h = residual(second, residual(first, h))
        skips.append(h)
        h = down(h)
    for block in network.mid_modules:
        h = residual(block, h)
    for first, second, up in network.up_modules:
        h = up(residual(second, residual(first, torch.cat([h, skips.pop()], 1))))
    return network.final_conv(h).transpose(1, 2)


def test_the_state_dict_has_exactly_the_published_keys_and_shapes():
    c = UNetConfig(action_dim=2, observation_dim=20)
    with torch.device("meta"):
        state = ConditionalUnet1D(c).state_dict()
    known, wanted = c.step_width + 2 * 20, {}

    def convolution(name, a, b):
        wanted.update({f"{name}.block.0.weight": (b, a, 5), f"{name}.block.0.bias": (b,)})
        wanted.update({f"{name}.block.1.weight": (b,), f"{name}.block.1.bias": (b,)})

    def residual(name, a, b):
        convolution(f"{name}.blocks.0", a, b)
        convolution(f"{name}.blocks.1", b, b)
        wanted.update({f"{name}.cond_encoder.1.weight": (2 * b, known), f"{name}.cond_encoder.1.bias": (2 * b,)})
        if a != b:
            wanted.update({f"{name}.residual_conv.weight": (b, a, 1), f"{name}.residual_conv.bias": (b,)})

    for i, (a, b) in enumerate(((2, 256), (256, 512), (512, 1024))):
        residual(f"down_modules.{i}.0", a, b)
        residual(f"down_modules.{i}.1", b, b)
        if i < 2:
            wanted |= {f"down_modules.{i}.2.conv.weight": (b, b, 3), f"down_modules.{i}.2.conv.bias": (b,)}
    for i in range(2):
        residual(f"mid_modules.{i}", 1024, 1024)
    for i, (a, b) in enumerate(((2048, 512), (1024, 256))):
        residual(f"up_modules.{i}.0", a, b)
        residual(f"up_modules.{i}.1", b, b)
        wanted |= {f"up_modules.{i}.2.conv.weight": (b, b, 4), f"up_modules.{i}.2.conv.bias": (b,)}
    convolution("final_conv.0", 256, 256)
    wanted |= {"final_conv.1.weight": (2, 256, 1), "final_conv.1.bias": (2,)}
    wanted |= {"diffusion_step_encoder.1.weight": (1024, 256), "diffusion_step_encoder.1.bias": (1024,)}
    wanted |= {"diffusion_step_encoder.3.weight": (256, 1024), "diffusion_step_encoder.3.bias": (256,)}
    assert {k: tuple(v.shape) for k, v in state.items()} == wanted


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_stream_of_blocks_is_the_u_net(config, network):
    net = network(config)
    for lanes in (1, 5):
        x, obs = inputs(config, lanes)
        for label in (0, 1, 42, 99):
            got, wanted = net(x, label, obs), as_published(net, x, label, obs)
            assert wanted.std() > 0.05  # a comparison of zeros would prove nothing
            assert torch.equal(got, wanted)


def test_a_copy_of_a_network_runs_on_its_own_weights(network):
    net = network(SHAPES["three levels"])
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    x, obs = inputs(net.config, 2)
    assert twin(x, 3, obs).abs().max() > 0 and net(x, 3, obs).abs().max() == 0


def test_every_block_reaches_the_output(network, monkeypatch):
    """None is dead: what a block gives changes what comes out, or it would not be worth caching."""
    net = network(SHAPES["three levels"])
    x, obs = inputs(net.config, 1)
    whole = net(x, 7, obs)
    for left_out in net.blocks():
        silent = Block(left_out.name, left_out.kind, left_out.layer, lambda h, told: torch.zeros_like(h))
        blocks = [silent if block.name == left_out.name else block for block in net.blocks()]
        monkeypatch.setattr(net, "blocks", lambda blocks=blocks: blocks)
        assert not torch.equal(net(x, 7, obs), whole), left_out.name
        monkeypatch.undo()


def test_its_blocks_can_be_cached_and_a_schedule_that_refreshes_all_gives_the_dense_bits(network):
    net = network(SHAPES["three levels"])
    dense = accel.build(net, load_plan("ddim-10"), (2,), net.config.horizon)
    _, obs = inputs(net.config, 3)
    full = np.ones((len(net.blocks()), 10), bool)
    few = full & (np.arange(10) % 3 == 0)
    seed = torch.arange(3)

    def chunk(program):
        with torch.inference_mode():
            return run_chunk(program, program.prepare(obs), seed, torch.zeros_like(seed)).clone()

    assert torch.equal(chunk(cached(dense, full)), chunk(dense))
    assert not torch.equal(chunk(cached(dense, few)), chunk(dense))


def test_a_checkpoint_comes_back_and_serves_chunks(network, tmp_path, random_checkpoint):
    checkpoint = random_checkpoint(SHAPES["three levels"], family=ConditionalUnet1D)
    save_checkpoint(tmp_path / "unet", checkpoint, half=False)
    found = load_checkpoint(tmp_path / "unet")
    assert found.network.config == checkpoint.network.config
    obs = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0)).numpy()
    chunks = []
    for each in (checkpoint, Checkpoint(found.network, found.normaliser)):
        policy = DiffusionPolicy(each, load_plan("ddim-4"), width=4)
        policy.reset([0, 1, 2], [5, 6, 7])
        chunks.append(policy.predict_action_chunk(obs, [0, 1, 2]))
    assert chunks[0].shape == (3, 4, 2) and (chunks[0] == chunks[1]).all()


def test_it_learns_a_toy(toy_data):
    from ontick.policy import TrainingConfig, train

    observations, actions, ends = toy_data
    config = UNetConfig(**SMALL, down_dims=(16, 32))
    losses = []
    settings = TrainingConfig(steps=120, batch=16, lr=1e-3, warmup=10, weight_decay=1e-6)
    train(
        observations,
        actions,
        ends,
        config,
        settings,
        family=ConditionalUnet1D,
        progress=lambda step, loss: losses.append(loss),
    )
    assert sum(losses[-15:]) < 0.7 * sum(losses[:15])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"horizon": 10}, "divide by 4"),
        ({"down_dims": (8,)}, "two whole numbers"),
        ({"down_dims": (8, 12, 18)}, "groups"),
        ({"kernel_size": 4}, "odd"),
        ({"step_width": 5}, "even"),
        ({"n_action_steps": 8}, "n_action_steps"),
        ({"prediction": "velocity"}, "flow"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        UNetConfig(**{**SMALL, "down_dims": (8, 16, 32), **change})
