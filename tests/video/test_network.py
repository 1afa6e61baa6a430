"""The space-time transformer: what a frame's result depends on and what it does not, its memory, and its refusals.

Legend: B lanes, N frames, C, H, W, Da.
"""

import pytest
import torch

from ontick.diffusion import Asked, Rows
from ontick.errors import InputError
from ontick.video import Memory, Sight
from ontick.video.past import empty_memory, remembered

B, N = 2, 6
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def call():
    """x [B, N, 3, 16, 16], labels, ids and actions of a call."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(B, N, 3, 16, 16, generator=g)
    label = torch.randint(0, 1000, (B, N), generator=g).float()
    return x, label, torch.arange(N).expand(B, -1), torch.randn(B, N, 2, generator=g)


def asked(network, x, label, index, actions, sight=None):
    return network.predict(x, label, (), Rows(index, actions, sight)).x


def changed(tensor, frame, by=1.0):
    other = tensor.clone()
    other[:, frame] += by
    return other


def moved(one, other):
    """[N] bool: the frames that are another."""
    return (one != other).flatten(2).any(2).any(0).tolist()


def test_the_blocks_one_by_one_are_the_network_bit_for_bit(call, video_network):
    network = video_network()
    x, label, index, actions = call
    told_of = Asked(label, (), Rows(index, actions))
    h, told = network.enter(x, told_of), network.tell(told_of)
    for block in network.blocks():
        h = h + block.branch(h, told)
    assert torch.equal(network.leave(h, told_of), asked(network, *call))
    assert [block.name for block in network.blocks()] == [
        f"{layer}.{branch}" for layer in (0, 1) for branch in ("space", "time", "feed_forward")
    ]
    assert network.is_stream and asked(network, *call).shape == x.shape


@pytest.mark.parametrize("what", ["level", "action"])
def test_a_frame_depends_on_its_own_level_and_action(what, call, video_network):
    network = video_network().causal(1)
    x, label, index, actions = call
    other = (
        (x, changed(label, -1, 40.0), index, actions) if what == "level" else (x, label, index, changed(actions, -1))
    )
    assert moved(asked(network, *call), asked(network, *other)) == [False] * (N - 1) + [True]


def test_a_frame_without_an_action_is_told_the_action_zero(call, video_network):
    network = video_network()
    x, label, index, actions = call
    assert torch.equal(asked(network, x, label, index, None), asked(network, x, label, index, actions * 0))
    plain = video_network(action_dim=0)
    assert asked(plain, x, label, index, None).isfinite().all()
    assert torch.equal(asked(plain, x, label, index, actions[..., :0]), asked(plain, x, label, index, None))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_causal_frame_never_depends_on_frames_after_its_block(block, call, video_network):
    network = video_network().causal(block)
    x, label, index, actions = call
    one = asked(network, *call)
    for frame in range(N):
        first = frame // block * block  # the block of the frame that is changed
        wanted = [i >= first for i in range(N)]
        assert moved(one, asked(network, changed(x, frame), label, index, actions)) == wanted


def test_block_boundaries_are_multiples_of_the_block_wherever_a_call_begins(call, video_network):
    network = video_network().causal(2)
    x, label, index, actions = call
    index = index - 3  # blocks: -3 | -2 -1 | 0 1 | 2
    one = asked(network, x, label, index, actions)
    assert moved(one, asked(network, changed(x, 2), label, index, actions)) == [False, True, True, True, True, True]


def test_every_frame_of_a_bidirectional_call_depends_on_every_other(call, video_network):
    network = video_network()
    x, label, index, actions = call
    for frame in (0, N - 1):
        assert all(moved(asked(network, *call), asked(network, changed(x, frame), label, index, actions)))


@pytest.mark.parametrize("block", [0, 1])
def test_frames_before_the_streams_first_are_not_seen(block, call, video_network):
    network = video_network().causal(block) if block else video_network()
    x, label, index, actions = call
    index, sight = index - 2, Sight(torch.tensor([0, -1]))  # lane 0 lacks two frames, lane 1 one
    one = asked(network, x, label, index, actions, sight)
    noised = asked(network, changed(x, 0, 9.0), changed(label, 0), index, changed(actions, 0), sight)
    assert torch.equal(noised[:, 1:], one[:, 1:]) and one.isfinite().all()
    both = asked(network, changed(x, 1, 9.0), label, index, actions, sight)
    assert torch.equal(both[0, 2:], one[0, 2:]) and not torch.equal(both[1, 2:], one[1, 2:])


def test_a_call_that_lacks_frames_is_the_call_of_the_others(call, video_network):
    network = video_network()
    x, label, index, actions = call
    whole = asked(network, x, label, index - 2, actions, Sight(torch.zeros(B, dtype=torch.int64)))
    alone = asked(network, x[:, 2:], label[:, 2:], index[:, :-2], actions[:, 2:])
    torch.testing.assert_close(whole[:, 2:], alone, **CLOSE)


@pytest.mark.parametrize("first", [-7, 3, 10**9])
@pytest.mark.parametrize("block", [0, 1])
def test_a_global_offset_of_the_frame_ids_changes_nothing(first, block, call, video_network):
    network = video_network().causal(block) if block else video_network()
    x, label, index, actions = call
    assert torch.equal(asked(network, x, label, index + first, actions), asked(network, *call))


def test_the_order_of_frames_is_told(call, video_network):
    network = video_network()
    x, label, index, actions = call
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    turned = asked(network, x[:, order], label[:, order], index, actions[:, order])
    assert not torch.allclose(turned[:, order], asked(network, *call), atol=1e-3)


@pytest.mark.parametrize("places", [4, 7])
@pytest.mark.parametrize("block", [1, 2])
def test_remembered_keys_and_values_equal_showing_the_frames_again(block, places, call, video_network):
    network = video_network().causal(block)
    x, label, index, actions = call
    label = torch.where(torch.arange(N) < 4, 0.0, label)  # four clean frames, then noised ones
    memory = None
    for i in range(0, 4, block):
        part = slice(i, i + block)
        sight = Sight(torch.zeros(B, dtype=torch.int64), memory)
        new = network.remember(x[:, part], label[:, part], (), Rows(index[:, part], actions[:, part], sight))
        assert new.shape == (B, block, 2, 2, 4, 16)
        memory = remembered(memory or empty_memory(new, places), new, sinks=1)
    part, sight = slice(4, 4 + block), Sight(torch.zeros(B, dtype=torch.int64), memory)
    got = asked(network, x[:, part], label[:, part], index[:, part], actions[:, part], sight)
    torch.testing.assert_close(got, asked(network, x, label, index, actions)[:, part], **CLOSE)


def test_empty_places_of_a_memory_are_not_seen(call, video_network):
    network = video_network().causal(1)
    x, label, index, actions = (part[:, :1] for part in call)
    empty = empty_memory(network.remember(x, label, (), Rows(index, actions)), 3)
    noise = Memory(torch.randn_like(empty.held), empty.there)
    first = torch.zeros(B, dtype=torch.int64)
    wanted = asked(network, x, label, index, actions)
    for memory in (empty, noise):
        torch.testing.assert_close(asked(network, x, label, index, actions, Sight(first, memory)), wanted, **CLOSE)


def test_a_causal_network_shares_every_weight(video_network):
    network = video_network()
    causal = network.causal(2)
    assert (network.causal_block, causal.causal_block) == (0, 2)
    pairs = zip(network.parameters(), causal.parameters(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "flow"])
def test_it_runs_in_half_precision_and_stays_finite(schedule, call, video_network):
    prediction = "velocity" if schedule == "flow" else "sample"
    network = video_network(schedule=schedule, prediction=prediction)
    x, label, index, actions = call
    label = label / 1000 if schedule == "flow" else label
    wanted, half = asked(network, x, label, index, actions), network.to(torch.bfloat16)
    got = asked(half, x, label, index, actions)
    assert got.dtype == torch.bfloat16 and got.isfinite().all()
    assert (got.float() - wanted).abs().mean() < 0.05 * wanted.abs().mean()
    kept = half.causal(1).remember(x, label, (), Rows(index, actions))
    assert kept.isfinite().all() and kept.shape == (B, N, 2, 2, 4, 16)


def test_a_lane_does_not_depend_on_the_other_lanes(call, video_network):
    network = video_network()
    x, label, index, actions = call
    others = x.clone()
    others[0] = 7
    assert torch.equal(asked(network, others, label, index, actions)[1], asked(network, *call)[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 18}, "do not divide"),
        ({"width": 18, "heads": 4}, "even width"),
        ({"width": 6, "heads": 3}, "8 at least"),
        ({"width": 4, "heads": 2}, "8 at least"),
        ({"layers": 0}, "layers is 0"),
        ({"frames": 2.5}, "frames is 2.5"),
        ({"action_dim": -1}, "action_dim is -1"),
        ({"prediction": "epsilon"}, "unknown prediction"),
        ({"prediction": "velocity"}, "does not go with"),
        ({"schedule": "flow"}, "does not go with"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(wrong, said, video_config):
    with pytest.raises(InputError, match=said) as caught:
        video_config(**wrong)
    assert "\n" not in str(caught.value)
