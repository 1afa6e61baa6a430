"""The transformer is the published one: its keys, its sizes, its masks and its numbers.

Legend: B lanes, T action rows, S = 1 + To memory slots, E width.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontick.diffusion import Rows
from ontick.errors import InputError
from ontick.policy import StreamingTransformer, TransformerConfig, TransformerForDiffusion

PUSH_T = {"action_dim": 2, "observation_dim": 20, "horizon": 16, "n_obs_steps": 2, "n_action_steps": 8}


def published_shapes(c: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """The state_dict of the published network without conditioning layers, key by key."""
    T, S, E = c.horizon, 1 + c.n_obs_steps, c.width
    shapes = {
        "_dummy_variable": (0,),
        "pos_emb": (1, T, E),
        "cond_pos_emb": (1, S, E),
        "input_emb.weight": (E, c.action_dim),
        "input_emb.bias": (E,),
        "cond_obs_emb.weight": (E, c.observation_dim),
        "cond_obs_emb.bias": (E,),
        "encoder.0.weight": (4 * E, E),
        "encoder.0.bias": (4 * E,),
        "encoder.2.weight": (E, 4 * E),
        "encoder.2.bias": (E,),
        "ln_f.weight": (E,),
        "ln_f.bias": (E,),
        "head.weight": (c.action_dim, E),
        "head.bias": (c.action_dim,),
    }
    if c.causal:
        shapes |= {"mask": (T, T), "memory_mask": (T, S)}
    for i in range(c.layers):
        layer = f"decoder.layers.{i}"
        for attention in ("self_attn", "multihead_attn"):
            shapes |= {
                f"{layer}.{attention}.in_proj_weight": (3 * E, E),
                f"{layer}.{attention}.in_proj_bias": (3 * E,),
                f"{layer}.{attention}.out_proj.weight": (E, E),
                f"{layer}.{attention}.out_proj.bias": (E,),
            }
        shapes |= {f"{layer}.linear1.weight": (4 * E, E), f"{layer}.linear1.bias": (4 * E,)}
        shapes |= {f"{layer}.linear2.weight": (E, 4 * E), f"{layer}.linear2.bias": (E,)}
        shapes |= {f"{layer}.norm{j}.{part}": (E,) for j in (1, 2, 3) for part in ("weight", "bias")}
    return shapes


@pytest.mark.parametrize("causal", [True, False])
def test_the_state_dict_has_exactly_the_published_keys_and_shapes(causal):
    config = TransformerConfig(**PUSH_T, causal=causal)
    state = TransformerForDiffusion(config).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == published_shapes(config)


def test_masks_are_buffers_and_no_parameters(tiny_config):
    network = TransformerForDiffusion(tiny_config())
    assert {k for k, _ in network.named_buffers() if not k.startswith("_")} == {"mask", "memory_mask"}
    free = TransformerForDiffusion(tiny_config(causal=False))
    assert free.mask is None and free.memory_mask is None


def test_conditioning_layers_replace_the_encoder_by_torchs_own(tiny_config):
    config = tiny_config(n_cond_layers=2)
    E = config.width
    layer = torch.nn.TransformerEncoderLayer(E, config.heads, 4 * E)
    wanted = {f"encoder.layers.{i}.{k}": tuple(v.shape) for i in range(2) for k, v in layer.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in TransformerForDiffusion(config).state_dict().items()}
    assert {k: v for k, v in got.items() if k.startswith("encoder.")} == wanted
    rest = {k: v for k, v in published_shapes(config).items() if not k.startswith("encoder.")}
    assert {k: v for k, v in got.items() if not k.startswith("encoder.")} == rest


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        (PUSH_T, 8_965_122),
        ({"horizon": 10, "observation_dim": 19, "action_dim": 10}, 8_967_434),
        ({"horizon": 10, "observation_dim": 23, "action_dim": 10}, 8_968_458),
        ({"horizon": 10, "observation_dim": 53, "action_dim": 10}, 8_976_138),
        ({"horizon": 10, "observation_dim": 59, "action_dim": 20}, 8_982_804),
        ({"horizon": 5, "n_obs_steps": 3, "n_action_steps": 1, "observation_dim": 16, "action_dim": 2}, 8_961_538),
        ({"width": 768, "horizon": 16, "n_obs_steps": 4, "observation_dim": 60, "action_dim": 9}, 80_415_753),
    ],
    ids=["push-t", "lift", "can-square", "tool-hang", "transport", "block-push", "kitchen"],
)
def test_it_has_as_many_parameters_as_the_published_one(shape, count):
    with torch.device("meta"):  # counted, not filled
        network = TransformerForDiffusion(TransformerConfig(**shape))
    assert sum(p.numel() for p in network.parameters()) == count


# -- the same numbers as torch's own layers ---------------------------------------------------------------------------

SHAPES = {
    "push-t": PUSH_T,
    "three observations": {**PUSH_T, "n_obs_steps": 3, "width": 32, "layers": 3},
    "conditioning layers": {**PUSH_T, "n_cond_layers": 2, "width": 32, "layers": 3},
    "not causal": {**PUSH_T, "causal": False, "width": 32, "layers": 3},
    "one observation, one head": {**PUSH_T, "n_obs_steps": 1, "heads": 1, "width": 32, "layers": 2},
}


def stock_twin(stock, network):
    c = network.config
    twin = stock.StockTransformer(
        c.action_dim,
        c.observation_dim,
        c.horizon,
        c.n_obs_steps,
        c.width,
        c.layers,
        c.heads,
        causal=c.causal,
        n_cond_layers=c.n_cond_layers,
    )
    twin.load_state_dict(network.state_dict(), strict=True)
    return twin.eval().requires_grad_(False)


def inputs(config, lanes, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(lanes, config.horizon, config.action_dim, generator=g)
    return x, torch.randn(lanes, config.n_obs_steps, config.observation_dim, generator=g)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_equals_the_stock_transformer_decoder(shape, stock, random_network):
    network = random_network(TransformerConfig(**shape))
    twin = stock_twin(stock, network)
    for lanes in (1, 5):
        x, obs = inputs(network.config, lanes)
        for label in (0, 1, 42, 99):
            got, wanted = network(x, label, obs), twin(x, label, obs)
            assert wanted.std() > 0.1  # a comparison of zeros would prove nothing
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_lanes_may_be_at_different_levels(stock, random_network, tiny_config):
    network = random_network(tiny_config())
    x, obs = inputs(network.config, 3)
    label = torch.tensor([0, 50, 99])
    wanted = stock_twin(stock, network)(x, label, obs)
    torch.testing.assert_close(network(x, label, obs), wanted, atol=1e-5, rtol=1e-5)
    for i in range(3):
        alone = network(x[i : i + 1], label[i], obs[i : i + 1])
        torch.testing.assert_close(alone, wanted[i : i + 1], atol=1e-5, rtol=1e-5)


def test_a_label_may_be_a_number_a_scalar_tensor_or_one_a_lane(random_network, tiny_config):
    network = random_network(tiny_config())
    x, obs = inputs(network.config, 2)
    wanted = network(x, 7, obs)
    for label in (7.0, torch.tensor(7), torch.tensor([7]), torch.tensor([7.0, 7.0])):
        assert torch.equal(network(x, label, obs), wanted)


def test_predict_equals_forward(random_network, tiny_config):
    for layers in (0, 2):
        network = random_network(tiny_config(n_cond_layers=layers))
        x, obs = inputs(network.config, 2)
        label, rows = torch.full((2, 8), 30.0), Rows(torch.arange(8).expand(2, -1))
        assert torch.equal(network.predict(x, label, network.prepare(obs), rows).x, network(x, 30, obs))


# -- what sees what ---------------------------------------------------------------------------------------------------


def test_the_first_row_sees_the_first_observation_alone_and_the_others_see_both(random_network, tiny_config):
    network = random_network(tiny_config())
    seen = network.memory_mask == 0
    assert seen[0].tolist() == [True, True, False] and seen[1:].all()
    x, obs = inputs(network.config, 1)
    other = obs.clone()
    other[:, 1] += 1
    moved = (network(x, 5, obs) != network(x, 5, other)).any(-1)[0]
    assert not moved[0] and moved[1:].all()


def test_with_three_observations_row_by_row_one_more_is_seen(random_network, tiny_config):
    seen = random_network(tiny_config(n_obs_steps=3)).memory_mask == 0
    assert seen[:3].tolist() == [[True, True, False, False], [True, True, True, False], [True] * 4]
    assert seen[3:].all()


def test_a_row_moves_itself_and_the_rows_after_it_alone(random_network, tiny_config):
    network = random_network(tiny_config())
    x, obs = inputs(network.config, 1)
    for row in range(network.config.horizon):
        other = x.clone()
        other[:, row] += 1
        moved = (network(x, 5, obs) != network(other, 5, obs)).any(-1)[0]
        assert not moved[:row].any() and moved[row:].all()


def test_without_causality_every_row_moves_every_row(random_network, tiny_config):
    network = random_network(tiny_config(causal=False))
    x, obs = inputs(network.config, 1)
    other = x.clone()
    other[:, -1] += 1
    assert (network(x, 5, obs) != network(other, 5, obs)).any(-1).all()


@pytest.mark.parametrize("shape", [PUSH_T, {**PUSH_T, "n_obs_steps": 3, "width": 32, "layers": 2}])
def test_fewer_rows_give_the_same_first_rows(shape, random_network):
    network = random_network(TransformerConfig(**shape))
    x, obs = inputs(network.config, 2)
    whole = network(x, 60, obs)
    for rows in (1, 2, 9, 15):
        torch.testing.assert_close(network(x[:, :rows], 60, obs), whole[:, :rows], atol=1e-5, rtol=1e-5)


# -- blocks -----------------------------------------------------------------------------------------------------------


def test_blocks_are_three_branches_a_layer_in_order(random_network, tiny_config):
    blocks = random_network(tiny_config(layers=3)).blocks()
    kinds = ["self_attention", "cross_attention", "feed_forward"]
    assert [b.kind for b in blocks] == kinds * 3
    assert [b.layer for b in blocks] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [b.name for b in blocks] == [f"{b.layer}.{b.kind}" for b in blocks]


def test_the_branches_summed_by_hand_are_the_network(random_network, tiny_config):
    from ontick.policy.transformer import Context

    network = random_network(tiny_config())
    x, obs = inputs(network.config, 2)
    prepared = network.prepare(obs)
    frequency = torch.exp(torch.arange(8) * (-torch.log(torch.tensor(10000.0)) / 7))
    angle = torch.full((2, 1), 30.0) * frequency
    time = torch.cat([angle.sin(), angle.cos()], -1)[:, None] + network.cond_pos_emb[:, :1]
    context = Context(torch.cat([network.encoder(time), prepared], 1), network.mask, network.memory_mask)
    h = network.input_emb(x) + network.pos_emb
    for block in network.blocks():
        h = h + block.branch(h, context)
    torch.testing.assert_close(network.head(network.ln_f(h)), network(x, 30, obs), atol=1e-6, rtol=1e-6)


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_its_state_survives_half_precision_safetensors(tmp_path, random_network, tiny_config):
    network = random_network(tiny_config())
    state = {k: v.half() for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    loaded = load_file(tmp_path / "half.safetensors")
    assert loaded["_dummy_variable"].shape == (0,)
    assert torch.equal(loaded["mask"].float(), network.mask)  # minus infinity has an fp16
    other = TransformerForDiffusion(tiny_config()).eval()
    other.load_state_dict({k: v.float() for k, v in loaded.items()}, strict=True)
    assert all(torch.equal(v, state[k].float()) for k, v in other.state_dict().items())


@pytest.mark.parametrize("n_cond_layers", [0, 1])
@pytest.mark.parametrize("family", [TransformerForDiffusion, StreamingTransformer])
def test_a_network_begun_from_its_fan_in_differs_on_the_observations_way_alone(family, n_cond_layers, tiny_config):
    published, begun = {}, {}
    for state, fan_in_init in ((published, False), (begun, True)):
        torch.manual_seed(0)
        config = tiny_config(width=64, n_cond_layers=n_cond_layers, fan_in_init=fan_in_init)
        state.update(family(config).state_dict())
    way = {f"decoder.layers.{layer}.multihead_attn.in_proj_weight" for layer in range(config.layers)}
    way |= {k for k, v in begun.items() if k.startswith(("cond_obs_emb.", "encoder.")) and v.dim() == 2}
    assert {k for k, v in begun.items() if not torch.equal(v, published[k])} == way
    for name in way:
        assert begun[name].std().item() == pytest.approx(begun[name].shape[1] ** -0.5, rel=0.15), name


def test_a_network_begun_from_its_fan_in_hears_its_observation(tiny_config):
    def varies(fan_in_init):
        torch.manual_seed(0)
        network = TransformerForDiffusion(tiny_config(width=64, fan_in_init=fan_in_init)).eval()
        obs = torch.randn(32, network.config.n_obs_steps, network.config.observation_dim)
        x = torch.zeros(32, network.config.horizon, network.config.action_dim)
        answer = network(x, torch.full((32,), 50), obs)
        return (answer.std(0).mean() / answer.abs().mean()).item()

    assert varies(True) > 10 * varies(False)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_action_steps": 8}, "n_action_steps 8 must be 1 to"),
        ({"width": 18, "heads": 4}, "divide by 4 heads"),
        ({"width": 15, "heads": 3}, "must be even"),
        ({"layers": 0}, "layers is 0"),
        ({"heads": 0}, "heads is 0"),
        ({"horizon": 8.0}, "horizon is 8.0"),
        ({"p_drop_attn": 1.5}, "p_drop_attn is 1.5"),
        ({"prediction": "noise"}, "unknown prediction 'noise'"),
        ({"fan_in_init": 1}, "fan_in_init is 1"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes, complaint, tiny_config):
    with pytest.raises(InputError, match=complaint):
        tiny_config(**changes)
