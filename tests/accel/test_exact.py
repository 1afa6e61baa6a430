import dataclasses

import pytest
import torch

from ontick import accel
from ontick.accel.exact import SWITCHES
from ontick.accel.exact_network import ExactDecoder, Rewrites
from ontick.diffusion import GridSpec, GuessSpec, Inputs, Plan, Rows, build, load_plan, run_chunk
from ontick.errors import InputError
from ontick.policy.transformer import Context

SOLVERS = ("ddpm-6", "ddim-6", "dpmpp-6", "unipc-6")
OFF = dict.fromkeys(SWITCHES, False)
FOLD = {"memory": True, "time_table": True, "fold": True}
ALONE = [pytest.param(OFF | (FOLD if name == "fold" else {name: True}), id=f"only {name}") for name in SWITCHES]
WITHOUT = [
    pytest.param({name: False} | ({"fold": False} if name in FOLD else {}), id=f"without {name}") for name in SWITCHES
]
LANES = 3


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def planned(name="ddpm-6", **switches) -> Plan:
    return dataclasses.replace(load_plan(name), accelerators={"exact": switches})


def observations(network, lanes=LANES, seed=5):
    c = network.config
    return torch.randn(lanes, c.n_obs_steps, c.observation_dim, generator=torch.Generator().manual_seed(seed))


def plain_program(network, name="ddpm-6"):
    return build(network, load_plan(name), (network.config.action_dim,), network.config.horizon)


def exact_program(network, name="ddpm-6", tail=False, positions=None, **switches):
    c = network.config
    return accel.build(network, planned(name, **switches), (c.action_dim,), positions or c.horizon, tail=tail)


def exact_network(network, switches=None, rows=None, levels=6):
    labels = torch.from_numpy(plain_program(network, f"ddpm-{levels}").grid.label[1:]).float()
    return ExactDecoder(network, labels, Rewrites(**(switches or {}), rows=rows))


def chunk(program, obs, keys):
    return run_chunk(program, program.prepare(obs), *keys(len(obs)))


def executed(config):
    return slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)


def assert_same_actions(program, network, name, keys):
    """All rows that are computed, the executed ones among them, are the plain network's."""
    obs = observations(network)
    want, got = chunk(plain_program(network, name), obs, keys), chunk(program, obs, keys)
    assert got.shape[1] == program.rows >= executed(network.config).stop
    assert (got[0] - got[1]).abs().max() > 1e-2, "lanes must differ for this to show anything"
    torch.testing.assert_close(got, want[:, : program.rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("switches", [*ALONE, *WITHOUT, pytest.param({}, id="everything")])
def test_every_choice_of_switches_gives_the_plain_networks_actions(randomised_network, keys, name, switches):
    network = randomised_network()
    assert_same_actions(exact_program(network, name, **switches), network, name, keys)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_obs_steps", "heads"), [(1, 1), (2, 4), (3, 2), (3, 8)])
@pytest.mark.parametrize("switches", [{}, {"fold": False}, {"weights": False}])
def test_it_is_exact_for_every_shape(randomised_network, keys, causal, n_obs_steps, heads, switches):
    network = randomised_network(n_obs_steps=n_obs_steps, heads=heads, causal=causal)
    program = exact_program(network, **switches)
    assert program.rows == (executed(network.config).stop if causal else network.config.horizon)
    assert_same_actions(program, network, "ddpm-6", keys)


@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_it_is_exact_for_other_parameterisations(randomised_network, keys, prediction):
    network = randomised_network(prediction=prediction, clip=None)
    assert_same_actions(exact_program(network, "dpmpp-6"), network, "dpmpp-6", keys)


def test_it_is_exact_for_flow_matching(randomised_network, keys):
    network = randomised_network(prediction="velocity", schedule="flow", clip=None)
    plan = Plan(name="flow", grid=GridSpec(kind="flow", steps=5, shift=3.0), solver="euler")
    c, obs = network.config, observations(network)
    want = chunk(build(network, plan, (c.action_dim,), c.horizon), obs, keys)
    plan = dataclasses.replace(plan, accelerators={"exact": {}})
    got = chunk(accel.build(network, plan, (c.action_dim,), c.horizon), obs, keys)
    torch.testing.assert_close(got, want[:, : executed(c).stop], rtol=0, atol=2e-5)


def test_memory_tokens_that_see_each_other_are_left_as_they_are(randomised_network, keys):
    network = randomised_network(n_cond_layers=1)
    switches = {"memory": False, "time_table": False, "fold": False}
    assert_same_actions(exact_program(network, **switches), network, "ddpm-6", keys)
    for name in ("memory", "time_table"):
        with pytest.raises(InputError, match=f"{name}: the memory tokens .* set memory, time_table and fold to false"):
            exact_program(network, **{**switches, name: True})
    with pytest.raises(InputError, match="needs memory and time_table"):
        exact_program(network, **{**switches, "fold": True})


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_folded_cross_attention_is_the_plain_one_in_float64(randomised_network, causal, weights):
    network = randomised_network(heads=4, n_obs_steps=3, causal=causal).double()
    c, exact = network.config, exact_network(network, {"weights": weights})
    g = torch.Generator().manual_seed(1)
    x = torch.randn(LANES, c.horizon, c.width, generator=g, dtype=torch.float64)
    obs, label = observations(network).double(), exact.labels[[4, 0, 2]]
    folded = exact.memory(label[:, None], exact.prepare(obs), None)
    memory = network.anatomy().memory(label, network.prepare(obs))
    context = Context(memory, network.mask, network.memory_mask)
    for mine, plain in zip(exact.blocks(), network.blocks(), strict=True):
        assert (mine.name, mine.kind, mine.layer) == (plain.name, plain.kind, plain.layer)
        want = plain.branch(x, context)
        torch.testing.assert_close(mine.branch(x, folded), want, rtol=0, atol=1e-12 * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize("switches", [{}, {"fold": False}, {"memory": False, "fold": False, "weights": False}])
def test_the_whole_network_is_the_plain_one_in_float64(randomised_network, switches):
    network = randomised_network(n_obs_steps=3).double()
    c, exact = network.config, exact_network(network, switches)
    x = torch.randn(LANES, c.horizon, c.action_dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    obs, label = observations(network).double(), exact.labels[[4, 0, 2]][:, None].expand(-1, c.horizon)
    want = network.predict(x, label, network.prepare(obs)).x
    got = exact.predict(x, label, exact.prepare(obs)).x
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * max(1.0, want.abs().max().item()))


def test_rows_after_the_executed_ones_are_dropped_unless_they_are_used(randomised_network):
    network = randomised_network(n_obs_steps=2)
    c = network.config
    assert exact_program(network).rows == c.n_obs_steps - 1 + c.n_action_steps < c.horizon
    assert exact_program(network, rows=True).rows == exact_program(network).rows
    assert exact_program(network, rows=False).rows == c.horizon
    assert exact_program(network, tail=True).rows == c.horizon


def test_dropped_rows_start_from_the_same_noise(randomised_network, keys):
    network = randomised_network()
    program, plain = exact_program(network), plain_program(network)
    seed, birth = keys(LANES)
    assert torch.equal(program.start(seed, birth).x, plain.start(seed, birth).x[:, : program.rows])


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({}, {"tail": True}, "late"),
        ({"causal": False}, {}, "not causal"),
        ({"n_action_steps": 7}, {}, "none after the executed ones"),
    ],
)
def test_dropping_rows_is_refused_where_they_are_needed(randomised_network, changes, settings, reason):
    with pytest.raises(InputError, match=f"rows: .*{reason}.*set rows to false or auto"):
        exact_program(randomised_network(**changes), rows=True, **settings)
    assert exact_program(randomised_network(**changes), **settings).rows == 8


def test_dropping_rows_is_refused_where_the_next_guess_needs_them(randomised_network):
    network = randomised_network()
    previous = {"birth": "guess", "guess": GuessSpec(source="previous")}
    with pytest.raises(InputError, match=r"next answer starts from the tail.*set rows to false or auto"):
        accel.build(network, dataclasses.replace(planned(rows=True), **previous), (2,), 8)
    assert accel.build(network, dataclasses.replace(planned(), **previous), (2,), 8).rows == 8


@pytest.mark.parametrize("birth", ["guess", "noised"])
def test_of_a_guess_that_is_used_once_the_executed_rows_alone_are_computed(randomised_network, keys, birth):
    network = randomised_network()
    program = accel.build(network, dataclasses.replace(planned(), birth=birth), (2,), 8)
    plain = build(network, dataclasses.replace(load_plan("ddpm-6"), birth=birth), (2,), 8)
    assert program.rows < plain.rows
    obs, guess = observations(network), torch.rand(LANES, 8, 2, generator=torch.Generator().manual_seed(2))
    got, want = (run_chunk(p, p.prepare(obs), *keys(LANES), guess) for p in (program, plain))
    torch.testing.assert_close(got, want[:, : program.rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("switches", [{}, {"rows": False}, {"fold": False, "rows": False}])
@pytest.mark.parametrize("positions", [4, 6])
def test_a_program_may_be_shorter_than_the_network(randomised_network, keys, positions, switches):
    network = randomised_network()
    plain = build(network, load_plan("ddpm-6"), (2,), positions)
    program = exact_program(network, positions=positions, **switches)
    obs = observations(network)
    want, got = chunk(plain, obs, keys), chunk(program, obs, keys)
    torch.testing.assert_close(got, want[:, : program.rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("switches", [{}, {"fold": False}, {"rows": False}])
def test_lanes_at_different_levels_each_find_their_own_time(randomised_network, keys, name, switches):
    network = randomised_network()
    obs = observations(network)

    def ticks(program):
        context, state, seen = program.prepare(obs), program.start(*keys(LANES)), []
        for tick in range(program.ticks + 4):
            fresh = program.start(*keys(LANES, birth=1))
            late = torch.tensor([False, tick == 2, tick == 4])
            state, _ = program.tick(program.reset(state, late, fresh), Inputs(context))
            seen.append(state.x)
        assert len(set(state.tick.tolist())) == LANES
        return torch.stack(seen)

    program = exact_program(network, name, **switches)
    want = ticks(plain_program(network, name))
    torch.testing.assert_close(ticks(program), want[:, :, : program.rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("fold", [True, False])
def test_entry_k_of_the_time_table_belongs_to_level_k(randomised_network, fold):
    network = randomised_network()
    exact, plain = exact_network(network, {"fold": fold}), plain_program(network)
    context = exact.prepare(observations(network))
    computed = exact_network(network, {"fold": False, "time_table": False})
    for k in range(1, 7):
        label = torch.full((LANES, 8), float(plain.grid.label[k]))
        by_label, by_step = exact.memory(label, context, None), exact.memory(torch.full((LANES, 8), -1.0), context, k)
        for a, b in zip(by_label, by_step, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        if not fold:
            now = computed.memory(label, context, k)
            torch.testing.assert_close(by_step.key, now.key, rtol=0, atol=1e-5)
            torch.testing.assert_close(by_step.value, now.value, rtol=0, atol=1e-5)


def test_a_known_step_and_its_label_give_the_same_answer(randomised_network):
    network = randomised_network()
    exact, program = exact_network(network), plain_program(network)
    context, index = exact.prepare(observations(network)), torch.arange(8).expand(LANES, -1)
    x = torch.randn(LANES, 8, 2, generator=torch.Generator().manual_seed(3))
    for k in (1, 6):
        label = torch.full((LANES, 8), float(program.grid.label[k]))
        results = [exact.predict(x, label, context, Rows(index, step=step)).x for step in (None, k)]
        assert torch.equal(*results)


@pytest.mark.parametrize(
    ("switches", "fix"),
    [
        (OFF, "leave it out of the plan"),
        ({"memory": False}, "needs memory and time_table"),
        ({"time_table": False}, "needs memory and time_table"),
        ({"folding": True}, "unknown folding; switches: memory, time_table"),
        ({"fold": "yes"}, "fold is 'yes', wanted true or false"),
        ({"fold": "auto"}, "fold is 'auto', wanted true or false"),
        ({"noise": 1}, "noise is 1, wanted true or false"),
        ({"rows": 3}, "rows is 3, wanted true, false or auto"),
        ({"rows": None}, "rows is None, wanted true, false or auto"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_fix(randomised_network, switches, fix):
    with pytest.raises(InputError, match=f"plan 'ddpm-6', accelerator exact: .*{fix}") as caught:
        exact_program(randomised_network(), **switches)
    assert "\n" not in str(caught.value)


def test_networks_without_an_anatomy_and_staggered_plans_are_refused(mixer, randomised_network):
    with pytest.raises(InputError, match=r"Mixer does not show its weights \(Denoiser.anatomy\)"):
        accel.build(mixer(), planned(), (2,), 8)
    staggered = dataclasses.replace(planned(), stagger=2)
    with pytest.raises(InputError, match="move together; this plan has stagger 2"):
        accel.build(mixer(), staggered, (2,), 8)
    with pytest.raises(InputError, match="use stagger 0"):
        accel.build(randomised_network(), staggered, (2,), 8)
    parts = dataclasses.replace(planned(), view="partitions", pieces=2)
    with pytest.raises(InputError, match="this plan has stagger 0 and view partitions"):
        accel.build(mixer(), parts, (2,), 8)


@pytest.mark.parametrize("switches", [{}, {"weights": False}, {"fold": False, "weights": False}])
def test_the_network_that_is_read_is_never_changed(randomised_network, keys, switches):
    network = randomised_network()
    plain, obs = plain_program(network), observations(network)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = chunk(plain, obs, keys)
    for precision in ("fp32", "bf16", "int8"):
        plan = dataclasses.replace(planned(**switches), precision=precision)
        chunk(accel.build(network, plan, (2,), 8), obs, keys)
    after = network.state_dict()
    assert state.keys() == after.keys()
    assert all(value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in state.items())
    assert torch.equal(chunk(plain, obs, keys), before)


def test_a_plan_without_accelerators_is_the_plain_program(randomised_network):
    network = randomised_network()
    program = accel.build(network, load_plan("ddpm-6"), (2,), 8)
    assert program.denoiser is network and program.executor is None and program.rewritten is None


def counted(config, *, fold=True, weights=True, rows=None, bytes_=(4, 4, 0)):
    """Bytes by hand: of a weight, of anything else, of an output channel's scale."""
    E, L, H, D, T = config.width, config.layers, config.heads, config.action_dim, rows or config.horizon
    matrix, other, scale = bytes_
    maps = [(E, 3 * E), (E, E), (E, 4 * E), (4 * E, E)] + ([] if fold else [(E, E), (E, E)])
    linears = [(i, o, o) for _ in range(L) for i, o in maps] + [(E, D, D), (D, E, 0 if weights else E)]
    total = sum(matrix * i * o + other * bias + scale * o for i, o, bias in linears)
    norms = 0 if weights else 2 * E * (1 + L * (2 if fold else 3))
    table = L * (2 * H * E + T * H) if fold else L * 2 * E
    return total + other * (norms + T * E + table)


def test_weight_bytes_are_those_that_a_call_reads(randomised_network):
    network = randomised_network()
    c = network.config
    assert exact_network(network).weight_bytes() == counted(c)
    assert exact_network(network, rows=5).weight_bytes() == counted(c, rows=5)
    for switches in ({"fold": False}, {"weights": False}, {"fold": False, "weights": False}):
        assert exact_network(network, switches).weight_bytes() == counted(c, **switches)
    assert exact_network(network).at_precision("bf16").weight_bytes() == counted(c, bytes_=(2, 2, 0))
    assert exact_network(network).at_precision("int8").weight_bytes() == counted(c, bytes_=(1, 4, 4))


def test_weight_bytes_hold_the_projections_that_stay_in_the_call(randomised_network):
    """Without `memory` every call projects the observation tokens to keys and values."""
    network = randomised_network()
    E, L = network.config.width, network.config.layers
    got = exact_network(network, {"memory": False, "fold": False}).weight_bytes()
    assert got == counted(network.config, fold=False) + 4 * L * (2 * E * E + 2 * E)


@pytest.mark.parametrize("name", SOLVERS)
def test_drawing_noise_first_changes_no_bit(randomised_network, keys, name):
    network = randomised_network()
    obs = observations(network)
    assert torch.equal(*(chunk(exact_program(network, name, noise=on), obs, keys) for on in (True, False)))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_step_as_one_expression_is_the_same_step(randomised_network, keys, name):
    network = randomised_network()
    obs = observations(network)
    results = [chunk(exact_program(network, name, solver=on), obs, keys) for on in (True, False)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)
