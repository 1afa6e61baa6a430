"""Streams: the truth comes out in order whatever the sampler, a frame depends on its seed, its actions and the efforts
alone, and every call is counted.

Legend: B lanes, b frames of a block, k of a prompt, S steps, s stagger, C, H, W, Da.
"""

import dataclasses

import pytest
import torch

from ontick.diffusion import Inputs, Rows, build, keyed_normal, schedule
from ontick.errors import InputError
from ontick.video import Effort, Stream, StreamPlan, stream_plan
from ontick.video.steering import HELD, steered, wandering

COSINE = schedule("squaredcos_cap_v2", 1000)
SAMPLERS = {
    "full": {"steps": 4},
    "full, odd": {"steps": 3},
    "fifo": {},
    "fifo, two windows": {"steps": 16},
    "fifo, partitions": {"steps": 16, "view": "partitions"},
    "fifo, all": {"view": "all"},
    "rolling": {},
    "rolling, stagger 4": {"stagger": 4},
    "ar": {},
    "ar, stagger 3": {"stagger": 3},
    "ar, stagger 8": {"stagger": 8},
    "causal": {},
    "causal, one step": {"steps": 1},
}
NAMES = ("full", "fifo", "rolling", "ar", "causal")
BIG, SMALL = (3, 16, 16), (3, 4, 4)
CLOSE = {"atol": 1e-5, "rtol": 0}


def plan_of(sampler, frames=8):
    return stream_plan(sampler.partition(",")[0], COSINE, frames, **SAMPLERS[sampler])


def brief(name):
    """A sampler of few calls."""
    return stream_plan(name, COSINE, 8, steps={"full": 4, "rolling": 6, "ar": 4}.get(name))


def actions_of(count, lanes=None, seed=0):
    """[count, 2] or [lanes, count, 2], no two alike."""
    shape = (count, 2) if lanes is None else (lanes, count, 2)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(stream, frames, actions=None):
    """[B, >= frames, C, H, W]; actions [n, Da] of the frames from here on."""
    first, parts = stream.frames, []
    while stream.frames - first < frames:
        parts.append(stream.advance(None if actions is None else actions[..., stream.frames - first :, :]))
    return torch.cat(parts, 1)


def pictures(count, lanes=1, seed=0, shape=BIG):
    return torch.rand(lanes, count, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def truth():
    return torch.randn(100, *SMALL, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def networks(video_network):
    return video_network()


# -- the truth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_network_that_knows_the_truth_draws_it_in_order_at_every_effort(sampler, truth, frame_oracle):
    plan = plan_of(sampler)
    for effort in Stream(frame_oracle(truth), plan, SMALL).efforts:
        stream = Stream(frame_oracle(truth), plan, SMALL, seeds=[4, 9])
        first = 0
        while stream.frames < 9:
            block = stream.advance(effort=effort)
            start = first + stream._warm_up
            wanted = truth[start : start + stream.block].expand(2, -1, -1, -1, -1)
            torch.testing.assert_close(block, wanted, **CLOSE)
            first += stream.block
            assert stream.frames == first


def test_efforts_may_change_from_block_to_block(truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("rolling, stagger 4"), SMALL)
    order = [Effort.SKIP, Effort.FULL, Effort.EARLY, Effort.SHORT, Effort.EARLY, Effort.FULL, Effort.SKIP, Effort.SHORT]
    for frame, effort in enumerate(order):
        torch.testing.assert_close(stream.advance(effort=effort)[0, 0], truth[frame], **CLOSE)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_stream_that_ends_gives_its_frames_and_refuses_more(sampler, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of(sampler), SMALL, length=7)
    frames = drawn(stream, 7)[0]
    start = stream._warm_up
    torch.testing.assert_close(frames[:7], truth[start : start + 7], **CLOSE)
    with pytest.raises(InputError, match="the stream has ended after 7 frames"):
        stream.advance()


# -- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_fork_goes_on_as_the_stream_does_and_changes_nothing_in_it(name, networks):
    actions, plan = actions_of(40), brief(name)
    stream = Stream(networks, plan, BIG, seeds=[5], action_dim=2)
    whole = drawn(Stream(networks, plan, BIG, seeds=[5], action_dim=2), 7, actions)
    head = drawn(stream, 3, actions)
    fork = stream.fork()
    drawn(fork.fork(), 2, -actions)
    count = head.shape[1]
    assert torch.equal(torch.cat([head, drawn(fork, 7 - count, actions[count:])], 1), whole)
    assert torch.equal(torch.cat([head, drawn(stream, 7 - count, actions[count:])], 1), whole)
    assert fork.calls == stream.calls


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_depends_on_its_seed_and_its_actions_alone(name, networks):
    plan, actions = brief(name), actions_of(40, lanes=3)

    def lane(seeds, told, at):
        return drawn(Stream(networks, plan, BIG, seeds=seeds, action_dim=2), 4, told)[at]

    one = lane([3, 5, 9], actions, 1)
    other = torch.stack([-actions[0], actions[1], actions[0]])
    assert torch.equal(lane([1, 5, 2], other, 1), one), "the same at the same width, bit for bit"
    torch.testing.assert_close(lane([5], actions[1], 0), one, **CLOSE)
    assert not torch.allclose(lane([6], actions[1], 0), one, atol=0.1)
    assert not torch.allclose(lane([5], actions[2], 0), one, atol=0.01)


# -- what came before -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_and_its_actions_are_seen(name, networks):
    plan, told = brief(name), actions_of(2, lanes=1)

    def first(prompt, prompt_actions):
        options = {"prompt": prompt, "prompt_actions": prompt_actions, "action_dim": 2}
        return Stream(networks, plan, BIG, **options).advance()

    one = first(pictures(2), told)
    assert torch.equal(one, first(pictures(2), told))
    for other in (first(pictures(2, seed=1), told), first(pictures(2), -told), first(None, None)):
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", ["full", "rolling", "ar"])
def test_frames_of_a_prompt_before_those_in_sight_change_nothing(name, networks):
    plan, long = brief(name), pictures(5)
    one, other = (Stream(networks, plan, BIG, prompt=prompt).advance() for prompt in (long, long[:, -2:]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_memory_draws_what_showing_all_past_frames_draws_while_nothing_is_forgotten(k, block, networks):
    frames = 8
    plan = stream_plan("causal", COSINE, 1 + frames)
    remembers = dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, block=block))
    assert remembers.memory == frames
    shows = StreamPlan(plan=dataclasses.replace(remembers.plan, behind=frames), causal=True)
    k -= k % block
    actions, told = actions_of(20, lanes=2), actions_of(k, lanes=2, seed=4)
    prompt = {"prompt": pictures(k, lanes=2), "prompt_actions": told} if k else {}
    one, other = (
        drawn(Stream(networks, which, BIG, seeds=[7, 8], action_dim=2, **prompt), frames - k + block, actions)
        for which in (remembers, shows)
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_the_newest_frames_of_a_prompt_that_does_not_divide_into_blocks_are_remembered(networks):
    plan = stream_plan("causal", COSINE, 9)
    plan = dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, block=2))
    prompt = pictures(3)
    one, other = (Stream(networks, plan, BIG, prompt=shown).advance() for shown in (prompt, prompt[:, 1:]))
    torch.testing.assert_close(one, other, **CLOSE)


def test_a_memory_that_is_full_keeps_its_size_and_the_stream_goes_on(networks):
    stream = Stream(networks, stream_plan("causal", COSINE, 4, steps=1), BIG)
    shapes = set()
    for _ in range(9):
        assert stream.advance().isfinite().all()
        shapes.add(tuple(stream._memory.held.shape))
    assert shapes == {(1, 3, 2, 2, 4, 16)}


# -- actions ----------------------------------------------------------------------------------------------------------


def told_of(oracle, stream):
    """{frame: the actions that it was ever told}; frames of a queue count from the first that is shown."""
    queued, told = bool(stream.plan.clip), {}
    for frame, _, action, in_queue in oracle.seen:
        if in_queue == queued and action is not None:  # without one the shape of a memory is found
            told.setdefault(frame - stream._warm_up, set()).add(action)
    return told


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_frame_is_told_its_own_action_at_every_level_and_when_it_is_out(sampler, truth, frame_oracle):
    oracle, actions = frame_oracle(truth), actions_of(60)
    stream = Stream(oracle, plan_of(sampler), SMALL, action_dim=2)
    drawn(stream, 11, actions)
    told = told_of(oracle, stream)
    for frame in range(11):
        assert told[frame] == {tuple(actions[frame].tolist())}, frame


def test_a_clip_that_a_queue_begins_with_is_told_the_same_actions(truth, frame_oracle):
    oracle, actions = frame_oracle(truth), actions_of(60)
    Stream(oracle, plan_of("fifo"), SMALL, action_dim=2).advance(actions)
    clip = {(frame, action) for frame, _, action, in_queue in oracle.seen if not in_queue and frame >= 0}
    assert clip == {(frame, tuple(actions[frame].tolist())) for frame in range(6)}


def test_the_last_action_is_held_and_no_action_is_zero(truth, frame_oracle):
    oracle = frame_oracle(truth)
    stream = Stream(oracle, plan_of("rolling"), SMALL, action_dim=2)
    stream.advance(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    held = told_of(oracle, stream)
    assert held[0] == {(1, 2)} and all(held[frame] == {(3, 4)} for frame in range(1, 6))
    oracle.seen.clear()
    stream.advance(torch.tensor([5.0, 6.0]))
    told = told_of(oracle, stream)
    assert told[0] == {(1, 2)}, "it is out"
    assert all(told[frame] == {(5, 6)} for frame in range(1, 7)), "those on their way are told of a change"
    oracle.seen.clear()
    stream.advance()
    assert told_of(oracle, stream)[2] == {(0, 0)} and told_of(oracle, stream)[1] == {(5, 6)}


def test_remembered_frames_were_told_their_own_actions(truth, frame_oracle):
    oracle, actions = frame_oracle(truth), actions_of(20)
    drawn(Stream(oracle, plan_of("causal"), SMALL, action_dim=2), 6, actions)
    clean = {(frame, action) for frame, label, action, _ in oracle.seen if label == 0 and action is not None}
    assert clean == {(frame, tuple(actions[frame].tolist())) for frame in range(6)}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_actions_that_are_not_finite_are_refused_and_the_stream_goes_on(wrong, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("rolling"), SMALL, action_dim=2)
    stream.advance(torch.zeros(2))
    with pytest.raises(InputError, match="NaN or infinity"):
        stream.advance(torch.tensor([0.0, wrong]))
    torch.testing.assert_close(stream.advance()[0, 0], truth[1], **CLOSE)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (3, 4, 2), (0, 2), (1, 2, 4, 2)])
def test_actions_of_another_shape_are_refused(shape, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("rolling"), SMALL, seeds=[0, 1], action_dim=2)
    with pytest.raises(InputError, match="with Da 2"):
        stream.advance(torch.zeros(shape))


# -- fifo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "clip"), [("fifo", 6), ("fifo, two windows", 6), ("fifo, partitions", 6)])
def test_fifo_throws_its_warm_up_away(sampler, clip, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of(sampler), SMALL)
    frame = stream.advance()
    assert stream._warm_up == stream.program.moving - clip and stream.frames == 1
    torch.testing.assert_close(frame[0, 0], truth[stream._warm_up], **CLOSE)


@pytest.mark.parametrize("steps", [8, 16])
def test_fifos_lookahead_is_the_simultaneous_update_and_the_one_from_the_tail(steps, video_network):
    networks = video_network(clip=None)
    program = build(networks, stream_plan("fifo", COSINE, 8, steps=steps).plan, BIG, None)
    keys = torch.tensor([3]), torch.tensor([0])
    state = program.start_from_clip(*keys, pictures(6))
    for _ in range(2):
        before = state
        state, out = program.tick(state, Inputs(()))
        order = program.index(before.tick)[0].argsort()
        level = program.level(before.tick, program.index(before.tick))[:, order]
        alpha, sigma, label = (
            torch.from_numpy(v).float() for v in (program.grid.alpha, program.grid.sigma, program.grid.label)
        )
        snapshot = before.x[:, order]
        for visits, same in ((program.views, False), (program.views[::-1], True), (program.views, True)):
            queue = snapshot.clone()
            for start, stop, keep in visits:
                seen = (queue if same else snapshot)[:, start:stop]
                index = torch.arange(start, stop)[None]
                x0 = networks.predict(seen, label[level[:, start:stop]], (), Rows(index)).x
                now, to = level[0, start:stop], (level[0, start:stop] - 1).clamp(min=0)
                a, s, a2, s2 = (v.reshape(1, -1, 1, 1, 1) for v in (alpha[now], sigma[now], alpha[to], sigma[to]))
                after = torch.where(
                    now.reshape(1, -1, 1, 1, 1) > 0, a2 * x0 + s2 * (seen - a * x0) / s.clamp(min=1e-9), seen
                )
                queue[:, keep:stop] = after[:, keep - start :]
            from_the_head = same and visits is program.views
            got = out.x[:, order]
            assert torch.allclose(queue, got, atol=1e-4) != from_the_head, "from the head in place is another sampler"


# -- what it costs ----------------------------------------------------------------------------------------------------

PER_BLOCK = {
    "full": 4,
    "full, odd": 3,
    "fifo": 2,
    "fifo, two windows": 4,
    "fifo, partitions": 2,
    "fifo, all": 1,
    "rolling": 2,
    "rolling, stagger 4": 4,
    "ar": 2,
    "ar, stagger 3": 3,
    "ar, stagger 8": 8,
    "causal": 5,
    "causal, one step": 2,
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_frame_costs_the_calls_that_the_algebra_says(sampler, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of(sampler), SMALL)
    stream.advance()
    program, per_block, blocks = stream.program, PER_BLOCK[sampler], 5
    if not stream.plan.clip:  # the ramp: S calls
        assert stream.calls == program.grid.steps + bool(stream.plan.memory)
    before = stream.calls
    for _ in range(blocks):
        stream.advance()
    assert stream.calls - before == blocks * per_block == blocks * stream.calls_of(Effort.FULL)
    assert stream.block == (6 if sampler.startswith("full") else 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_effort_costs_the_calls_that_it_says(sampler, truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of(sampler), SMALL)
    stream.advance()
    for effort in (*stream.efforts, *reversed(stream.efforts)):
        before = stream.calls
        stream.advance(effort=effort)
        assert stream.calls - before == stream.calls_of(effort), effort.name
    costs = [stream.calls_of(effort) for effort in stream.efforts]
    assert costs == sorted(costs, reverse=True)


def test_efforts_are_those_that_a_plan_can_tell_apart(frame_oracle, truth):
    def efforts(sampler):
        return "".join(e.name[:2] for e in Stream(frame_oracle(truth), plan_of(sampler), SMALL).efforts)

    assert efforts("rolling, stagger 4") == "FUEASKSH" and efforts("full") == "FUEASKSH"
    assert efforts("ar") == efforts("rolling") == "FUSKSH" and efforts("causal") == "FUEASK"
    assert efforts("fifo") == efforts("causal, one step") == "FU"


def test_a_short_block_shows_fewer_frames(truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("ar"), SMALL)
    stream.advance()
    seen = []
    for effort in (Effort.SKIP, Effort.SHORT):
        before = stream.frames_seen
        stream.advance(effort=effort)
        seen.append(stream.frames_seen - before)
    assert seen == [8, 4]


def test_an_effort_that_a_plan_lacks_is_refused(truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("fifo"), SMALL)
    with pytest.raises(InputError, match="has no effort SKIP"):
        stream.advance(effort=Effort.SKIP)


# -- reactions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_draws_the_action_reacts_in_the_next_frame(name, echo):
    stream = Stream(echo(), stream_plan(name, COSINE, 8), SMALL, action_dim=2)
    stream.advance(torch.ones(2))
    frames, calls = stream.reaction(torch.ones(2), -torch.ones(2))
    assert frames == 1 and calls == stream.calls_of(Effort.FULL)


def test_a_reaction_counts_frames_and_calls_until_it_shows_and_leaves_the_stream_alone(echo):
    late = echo()
    late.answer = lambda x, label, rows: (
        x * 0 + (rows.conditioning[..., :1, None, None] * (rows.index >= 9)[..., None, None, None])
    )
    stream = Stream(late, stream_plan("rolling", COSINE, 8), SMALL, action_dim=2)
    drawn(stream, 3)
    assert stream.reaction(torch.ones(2), -torch.ones(2)) == (7, 7 * 2)
    assert stream.frames == 3 and not stream.advance(torch.ones(2)).any()


def test_a_network_that_ignores_the_action_never_reacts(truth, frame_oracle):
    stream = Stream(frame_oracle(truth), stream_plan("full", COSINE, 8, steps=1), SMALL, action_dim=2)
    assert stream.reaction(torch.ones(2), -torch.ones(2)) is None


# -- beginnings and refusals ------------------------------------------------------------------------------------------


def test_levels_tell_the_share_of_noise_of_the_frames_being_drawn_and_move_from_call_to_call(truth, frame_oracle):
    stream = Stream(frame_oracle(truth), plan_of("rolling"), SMALL)
    assert stream.levels == [1.0] * 6
    stream.advance()
    stream.advance()
    levels = stream.levels
    assert levels == sorted(levels) and 0 < levels[0] < levels[-1] == 1.0
    first, second = stream.levels_by_call
    assert first == levels and all(after < before for after, before in zip(second, first, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": pictures(2, shape=(3, 8, 8))}, "prompt"),
        ({"prompt": pictures(2, lanes=2, shape=SMALL)}, "prompt"),
        ({"prompt": pictures(2, shape=SMALL)[0]}, "prompt"),
        ({"prompt": pictures(2, shape=SMALL), "prompt_actions": torch.zeros(1, 3, 2)}, "actions of the prompt"),
        ({"prompt_actions": torch.zeros(1, 3, 2)}, "actions of the prompt"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_that_does_not_fit_is_refused(name, options, said, truth, frame_oracle):
    with pytest.raises(InputError, match=said) as caught:
        Stream(frame_oracle(truth), stream_plan(name, COSINE, 8), SMALL, action_dim=2, **options)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_nothing_would_see_is_refused(truth, frame_oracle):
    plan = plan_of("rolling")
    blind = dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, behind=0))
    with pytest.raises(InputError, match="prompt"):
        Stream(frame_oracle(truth), blind, SMALL, prompt=pictures(2, shape=SMALL))


def test_a_wandering_action_is_held_and_known_by_its_frame_alone():
    path = torch.stack([wandering(3, frame, 2) for frame in range(20 * HELD)])
    assert torch.equal(path, path[::HELD].repeat_interleave(HELD, 0)) and set(path.flatten().tolist()) == {-1, 0, 1}
    assert torch.equal(wandering(3, 77, 2), path[77]) and not torch.equal(
        path[::HELD], torch.stack([wandering(4, frame, 2) for frame in range(0, 20 * HELD, HELD)])
    )
    assert keyed_normal(3, 0, 0, 0, 2).shape == wandering(3, 0, 2).shape


def test_keys_add_up_and_those_of_no_dimension_do_nothing():
    assert steered({"ArrowLeft", "ArrowUp"}, 2).tolist() == [-1, 1]
    assert steered({"ArrowLeft", "ArrowRight", "ArrowDown", "F1"}, 2).tolist() == [0, -1]
    assert steered({"ArrowUp", "ArrowRight"}, 1).tolist() == [1] and steered({"ArrowUp"}, 0).shape == (0,)
