import dataclasses

import pytest
import torch

from ontick import accel
from ontick.diffusion import load_plan, run_chunk

RANGE = 2.0  # actions lie in [-1, 1]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def program(network, precision="fp32", name="ddim-6", **switches):
    plan = dataclasses.replace(load_plan(name), accelerators={"exact": switches}, precision=precision)
    return accel.build(network, plan, (network.config.action_dim,), network.config.horizon)


def chunk(program, obs, keys):
    return run_chunk(program, program.prepare(obs), *keys(len(obs)))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("switches", [{}, {"fold": False}, {"weights": False}, {"memory": False, "fold": False}])
def test_lower_precisions_are_close_but_not_equal(randomised_network, observation, keys, precision, switches):
    network, obs = randomised_network(), observation(8)
    want, got = (chunk(program(network, p, **switches), obs, keys) for p in ("fp32", precision))
    assert got.dtype == torch.float32
    error = (got - want).abs()
    assert 0 < error.mean() < 0.03 * RANGE


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_one_call_at_lower_precision_is_close(randomised_network, observation, precision):
    network, obs = randomised_network(), observation(8)
    exact = program(network).denoiser
    lower = exact.at_precision(precision)
    x = torch.randn(8, 5, 2, generator=torch.Generator().manual_seed(0))
    label = torch.full((8, 5), 40.0)
    want, got = (network.predict(x, label, network.prepare(obs)).x for network in (exact, lower))
    assert 0 < (got.float() - want).norm() < 0.05 * want.norm()


def int8_pairs(network, **switches):
    """(what is held, what it stands for), a linear map each."""
    denoiser = program(network, "int8", **switches).denoiser
    merge = switches.get("weights", True)
    pairs = [(denoiser.embed, network.input_emb.weight)]
    for held, layer in zip(denoiser.layers, network.decoder.layers, strict=True):
        scale1, scale3 = (norm.weight if merge else 1.0 for norm in (layer.norm1, layer.norm3))
        pairs += [
            (held.self_in.linear, layer.self_attn.in_proj_weight * scale1),
            (held.self_out, layer.self_attn.out_proj.weight),
            (held.up.linear, layer.linear1.weight * scale3),
            (held.down, layer.linear2.weight),
        ]
    return [*pairs, (denoiser.head.linear, network.head.weight * (network.ln_f.weight if merge else 1.0))]


@pytest.mark.parametrize("weights", [True, False])
def test_int8_weights_lie_within_half_a_step_of_the_weights(randomised_network, weights):
    for held, weight in int8_pairs(randomised_network(), weights=weights):
        assert held.weight.dtype == torch.int8 and held.weight.shape == weight.shape
        assert held.scale.shape == (len(weight), 1), "a scale an output channel"
        assert (held.weight.float().abs().amax(1) == 127).all(), "the largest weight of a channel uses the whole range"
        apart = (held.weight.float() * held.scale - weight).abs()
        assert (apart <= held.scale * 0.5 * (1 + 1e-4)).all()


def test_an_output_channel_of_zeros_stays_zero(randomised_network):
    network = randomised_network()
    network.head.weight[1] = 0
    held, _ = int8_pairs(network)[-1]
    assert (held.weight[1] == 0).all() and held.scale.isfinite().all()


@pytest.mark.parametrize("switches", [{}, {"weights": False, "fold": False}])
def test_fp32_is_not_changed_by_its_siblings(randomised_network, observation, keys, switches):
    network, obs = randomised_network(), observation(2)
    exact = program(network, **switches)
    before = chunk(exact, obs, keys)
    for precision in ("bf16", "int8"):
        sibling = program(network, precision, **switches)
        assert sibling.denoiser.precision == precision
        chunk(sibling, obs, keys)
        exact.denoiser.at_precision(precision)
    assert exact.denoiser.precision == "fp32"
    assert torch.equal(chunk(exact, obs, keys), before)
    assert torch.equal(chunk(program(network, **switches), obs, keys), before)


def test_solver_steps_stay_fp32(randomised_network, observation, keys):
    """Where the network's output is zero the chunk is the solver's alone."""
    network = randomised_network()
    network.head.weight.zero_()
    network.head.bias.zero_()
    network.ln_f.bias.zero_()
    results = [chunk(program(network, precision), observation(2), keys) for precision in ("fp32", "bf16", "int8")]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
