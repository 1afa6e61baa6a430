"""A stock torch network and one of diffusers, cached by hooks in their own sampling loops."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ontick.accel.attach import attach, record
from ontick.accel.caching import CacheSchedule, sampler_of
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks.stock import StockTransformer, ddim_scheduler, ddpm_scheduler, sample
from ontick.diffusion import GridSpec, Plan, load_plan
from ontick.errors import InputError

STEPS = 10
PLAN = load_plan(f"ddim-{STEPS}")
STOCK_NAMES = tuple(f"{i}.{name}" for i in (0, 1) for name in ("self_attention", "cross_attention", "feed_forward"))
DIT_NAMES = ("0.attn1", "0.ff", "1.attn1", "1.ff")


def stock(random_network, config, seed=0) -> StockTransformer:
    """The benchmark's peer with the weights of a randomised network of ours."""
    network = StockTransformer(2, 3, 8, 2, width=16, layers=2, heads=2)
    network.load_state_dict(random_network(config, seed).state_dict())
    return network.eval().requires_grad_(False)


@pytest.fixture
def network(random_network, tiny_config):
    return stock(random_network, tiny_config())


@pytest.fixture
def dit(monkeypatch):
    """A tiny one of diffusers' image transformers, random weights."""
    utils = pytest.importorskip("diffusers.utils.import_utils")
    # what is tested needs no torchvision, and one that does not fit torch would fail the import
    monkeypatch.setattr(utils, "_torchvision_available", False)
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    shape = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 3, "num_layers": 2}
    model = DiTTransformer2DModel(**shape, sample_size=4, patch_size=2, num_embeds_ada_norm=100, norm_num_groups=1)
    for value in model.parameters():
        nn.init.normal_(value, std=0.3)
    return model.eval()


@torch.inference_mode()
def robot(network, lanes=2, seed=0, scheduler=ddim_scheduler, steps=STEPS):
    """A chunk of the stock network by the scheduler of diffusers, [B, T, Da]."""
    g = torch.Generator().manual_seed(seed)
    obs, noise = torch.randn(lanes, 2, 3, generator=g), torch.randn(lanes, 8, 2, generator=g)
    torch.manual_seed(seed)
    return sample(network, scheduler(), obs, noise, steps)


@torch.inference_mode()
def image(dit, lanes=2, seed=0, steps=STEPS):
    """[B, 3, 4, 4], by the scheduler of diffusers."""
    scheduler = ddim_scheduler()
    scheduler.set_timesteps(steps)
    g = torch.Generator().manual_seed(seed)
    x, labels = torch.randn(lanes, 3, 4, 4, generator=g), torch.arange(lanes)
    for t in scheduler.timesteps:
        out = dit(x, timestep=t.expand(lanes), class_labels=labels).sample
        x = scheduler.step(out, t, x).prev_sample
    return x


@pytest.fixture(params=["stock", "dit"])
def case(request):
    """The model, its sampling loop, its branches."""
    if request.param == "stock":
        return request.getfixturevalue("network"), robot, STOCK_NAMES
    return request.getfixturevalue("dit"), image, DIT_NAMES


def a_schedule(names, refresh=None, plan=PLAN, seed=0, **more) -> CacheSchedule:
    """By default each branch has its own random steps, the first among them."""
    if refresh is None:
        refresh = np.random.default_rng(seed).random((len(names), STEPS)) < 0.4
        refresh[:, 0] = True
    return CacheSchedule(refresh=refresh, blocks=names, sampler=sampler_of(plan), **more)


# -- what it computes --------------------------------------------------------------------------------------------------


def test_all_steps_computed_is_the_model_bit_for_bit(case):
    model, run, names = case
    plain = run(model)
    with attach(model, PLAN, schedule=a_schedule(names, np.ones((len(names), STEPS), bool))) as attachment:
        assert torch.equal(run(model), plain)
        assert all(count == (STEPS, 0) for count in attachment.counts.values())


def test_counts_are_the_schedules(case):
    model, run, names = case
    schedule = a_schedule(names)
    with attach(model, PLAN, schedule=schedule) as attachment:
        run(model)
        run(model, lanes=3)  # another chunk may have another width
    assert attachment.names == names
    for name, row in zip(names, schedule.refresh, strict=True):
        assert attachment.counts[name] == (2 * row.sum(), 2 * (~row).sum())


def test_what_is_not_computed_is_not_run(case):
    model, run, names = case
    schedule = a_schedule(names, np.eye(1, STEPS, dtype=bool).repeat(len(names), 0))
    ran = []
    inner = [m for name, m in model.named_modules() if name.endswith(("linear1", "ff.net"))]
    inner = [m if not isinstance(m, nn.ModuleList) else m[0] for m in inner]
    handles = [m.register_forward_pre_hook(lambda *_: ran.append(1)) for m in inner]
    with attach(model, PLAN, schedule=schedule):
        run(model)
    assert len(ran) == len(inner) == 2
    for handle in handles:
        handle.remove()


def test_detaching_restores_the_model(case):
    model, run, names = case
    before = [dict(vars(module)) for module in model.modules()]
    plain, weights = run(model), fingerprint(model)
    attachment = attach(model, PLAN, schedule=a_schedule(names))
    assert not torch.equal(run(model), plain)
    attachment.detach()
    attachment.detach()
    assert torch.equal(run(model), plain)
    assert fingerprint(model) == weights
    for module, then in zip(model.modules(), before, strict=True):
        assert vars(module).keys() == then.keys()
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_it_detaches_when_the_loop_fails(case):
    model, run, names = case
    plain = run(model)
    with pytest.raises(ZeroDivisionError), attach(model, PLAN, schedule=a_schedule(names)):
        raise ZeroDivisionError
    assert torch.equal(run(model), plain)


def test_nothing_leaks_from_chunk_to_chunk(case):
    model, run, names = case
    with attach(model, PLAN, schedule=a_schedule(names)) as attachment:
        first = run(model)
        run(model, seed=1)
        assert torch.equal(run(model), first)
        run(model, seed=2, steps=4)  # left before its end
        attachment.reset()
        assert torch.equal(run(model), first)


@pytest.mark.parametrize("scheduler", [ddim_scheduler, ddpm_scheduler])
@pytest.mark.parametrize("causal", [True, False])
def test_the_stock_network_equals_a_loop_that_caches_by_hand(random_network, tiny_config, scheduler, causal):
    network = stock(random_network, tiny_config(causal=True))
    if not causal:
        network.mask = network.memory_mask = None
    schedule = a_schedule(STOCK_NAMES)
    by_hand = robot(ByHand(network, schedule.refresh), scheduler=scheduler)
    with attach(network, PLAN, schedule=schedule):
        assert torch.equal(robot(network, scheduler=scheduler), by_hand)


class ByHand(nn.Module):
    """The stock network, written out with a cache; one chunk."""

    def __init__(self, network, refresh):
        super().__init__()
        self.network, self.refresh, self.k, self.cache = network, refresh, 0, {}

    def forward(self, x, t, obs):
        n = self.network
        seen = []
        handle = n.decoder.register_forward_pre_hook(lambda _, args: seen.extend(args))
        n(x, t, obs)
        handle.remove()
        h, memory = seen
        for i, layer in enumerate(n.decoder.layers):
            branches = (
                lambda y, at=layer: attend(at.self_attn, at.norm1(y), None, n.mask),
                lambda y, at=layer: attend(at.multihead_attn, at.norm2(y), memory, n.memory_mask),
                lambda y, at=layer: at.linear2(at.activation(at.linear1(at.norm3(y)))),
            )
            for b, branch in enumerate(branches, 3 * i):
                if self.refresh[b, self.k]:
                    self.cache[b] = branch(h)
                h = h + self.cache[b]
        self.k += 1
        return n.head(n.ln_f(h))


def attend(attention, x, memory, mask):
    memory = x if memory is None else memory
    return attention(x, memory, memory, attn_mask=mask, need_weights=False)[0]


def test_a_gate_after_a_branch_stays_fresh(dit):
    """adaLN multiplies what attention gave; the cached tensor is what stands before the gate."""
    gates, added = [], []
    block = dit.transformer_blocks[0]
    block.norm1.register_forward_hook(lambda *a: gates.append(a[-1][1]))
    refresh = np.zeros((4, 2), bool)
    refresh[:, 0] = True
    block.norm3.register_forward_pre_hook(lambda _, args: added.append(args[0]))
    entered = []
    block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    plan = load_plan("ddim-2")
    outs = []
    block.attn1.register_forward_hook(lambda _, args, out: outs.append(out))
    with attach(dit, plan, schedule=a_schedule(DIT_NAMES, refresh, plan)):
        image(dit, steps=2)
    assert not torch.equal(gates[0], gates[1])
    torch.testing.assert_close(added[1], entered[1] + gates[1][:, None] * outs[0])


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_is_cached_although_torch_would_fuse_it(norm_first):
    """All steps computed are the bits of the unfused layer, which a hook of anybody's calls for; the fused is near."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval().requires_grad_(False)
    x = torch.randn(3, 2, 5, 16)
    plan = Plan(name="two", grid=GridSpec(steps=3), solver="ddim")
    fused = [model(part) for part in x]
    hooks = [each.register_forward_pre_hook(lambda *_: None) for each in model.layers]
    unfused = [model(part) for part in x]
    for hook in hooks:
        hook.remove()
    names = ("0.self_attention", "0.feed_forward", "1.self_attention", "1.feed_forward")
    refresh = np.ones((4, 3), bool)
    with attach(model, plan, schedule=a_schedule(names, refresh, plan)):
        for part, near, exact in zip(x, fused, unfused, strict=True):
            out = model(part)
            torch.testing.assert_close(out, near)
            assert torch.equal(out, exact)
    assert torch.equal(model(x[0]), fused[0])


def test_a_post_norm_layer_norms_afresh_what_its_cached_branch_is_added_to():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval().requires_grad_(False)
    x, memory = torch.randn(2, 2, 5, 16), torch.randn(2, 3, 16)
    names = ("self_attention", "cross_attention", "feed_forward")
    plan = load_plan("ddim-2")
    y = layer.norm1(x[0] + layer._sa_block(x[0], None, None))
    cross = layer._mha_block(y, memory, None, None)
    forward = layer._ff_block(layer.norm2(y + cross))
    wanted = layer.norm3(layer.norm2(layer.norm1(x[1] + layer._sa_block(x[0], None, None)) + cross) + forward)
    with attach(layer, plan, schedule=a_schedule(names, np.array([[True, False]] * 3), plan)):
        layer(x[0], memory)
        assert torch.equal(layer(x[1], memory), wanted)


# -- plans and schedules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "refreshes"), [("uniform-5", 5), ("uniform-last-5", 6)])
def test_a_plan_name_is_enough(network, name, refreshes):
    with attach(network, name) as attachment:
        robot(network, scheduler=ddpm_scheduler, steps=100)
    assert set(attachment.counts.values()) == {(refreshes, 100 - refreshes)}


def test_a_schedule_fits_the_weights_and_the_sampler_or_is_refused(network, random_network, tiny_config):
    mine = a_schedule(STOCK_NAMES, network=fingerprint(network))
    attach(network, PLAN, schedule=mine).detach()
    with pytest.raises(InputError, match="for the network"):
        attach(stock(random_network, tiny_config(), seed=1), PLAN, schedule=mine)
    with pytest.raises(InputError, match="for the sampler"):
        attach(network, load_plan("ddpm-10"), schedule=mine)
    with pytest.raises(InputError, match="is for 4 blocks"):
        attach(network, PLAN, schedule=a_schedule(DIT_NAMES))
    with pytest.raises(InputError, match="brings a cache"):
        attach(network, "uniform-last-10", schedule=mine)


def test_plans_that_cache_nothing_or_otherwise_are_refused(network):
    with pytest.raises(InputError, match=r"'ddim-10' caches nothing; wanted .* uniform-last-10"):
        attach(network, "ddim-10")
    calibrated = dataclasses.replace(PLAN, accelerators={"cache": {"schedule": "bac-10"}})
    with pytest.raises(InputError, match="schedule=load_schedule"):
        attach(network, calibrated)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_another_batch_in_mid_chunk_is_refused(case):
    model, run, names = case
    with attach(model, PLAN, schedule=a_schedule(names)) as attachment:
        run(model, steps=3)
        with pytest.raises(InputError, match=r"forward 4 of 10 got \[3.* began with \[2.* call reset\(\)"):
            run(model, lanes=3)
        attachment.reset()
        run(model, lanes=3)


def test_training_is_refused(network):
    schedule = a_schedule(STOCK_NAMES)
    with pytest.raises(InputError, match="training mode"):
        attach(network.train(), PLAN, schedule=schedule)
    with attach(network.eval(), PLAN, schedule=schedule):
        network.train()
        with pytest.raises(InputError, match="training mode"):
            robot(network)


def test_gradients_are_refused(network):
    network.requires_grad_(True)
    obs, noise = torch.zeros(1, 2, 3), torch.zeros(1, 8, 2)
    with attach(network, PLAN, schedule=a_schedule(STOCK_NAMES)):
        with pytest.raises(InputError, match="inference_mode"):
            network(noise, 0, obs)
        with torch.no_grad():
            network(noise, 0, obs)


def test_two_attachments_are_refused(case):
    model, run, names = case
    with attach(model, PLAN, schedule=a_schedule(names)):
        with pytest.raises(InputError, match="attached already"):
            attach(model, PLAN, schedule=a_schedule(names))
        with pytest.raises(InputError, match="attached already"):
            record(model, lambda: run(model))
    attach(model, PLAN, schedule=a_schedule(names)).detach()


def test_a_compiled_model_is_refused(network):
    with pytest.raises(InputError, match="attach _orig_mod"):
        attach(torch.compile(network), PLAN, schedule=a_schedule(STOCK_NAMES))
    network.compile()
    with pytest.raises(InputError, match="attach it plain"):
        attach(network, PLAN, schedule=a_schedule(STOCK_NAMES))


# -- calibration -------------------------------------------------------------------------------------------------------


def test_record_gives_what_each_branch_adds_at_each_forward(case):
    model, run, names = case
    plain = run(model)
    results = []
    got, features = record(model, lambda: results.append(run(model)))
    assert got == names
    assert features.shape[:3] == (len(names), STEPS, 2)
    assert torch.equal(results[0], plain)
    assert torch.equal(run(model), plain)
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_recorded_branches_add_up_to_the_stock_networks_stream(network):
    ends = []
    hook = network.ln_f.register_forward_pre_hook(lambda _, args: ends.append(args[0]))
    starts = []
    begin = network.decoder.register_forward_pre_hook(lambda _, args: starts.append(args[0]))
    _, features = record(network, lambda: robot(network))
    torch.testing.assert_close(torch.stack(starts) + features.sum(0), torch.stack(ends))
    hook.remove()
    begin.remove()


def test_a_schedule_can_be_made_from_what_was_recorded(network):
    """The 10 steps at which each branch moved most; a foreign network calibrated and cached with what is public."""
    names, features = record(network, lambda: robot(network))
    moved = features.diff(dim=1).abs().flatten(2).mean(2)
    refresh = np.zeros((len(names), STEPS), bool)
    refresh[:, 0] = True
    np.put_along_axis(refresh, 1 + moved.topk(3).indices.numpy(), True, 1)
    schedule = CacheSchedule(refresh=refresh, blocks=names, sampler=sampler_of(PLAN), network=fingerprint(network))
    with attach(network, PLAN, schedule=schedule) as attachment:
        robot(network)
    assert set(attachment.counts.values()) == {(4, 6)}
