"""What plugs into a stream: block caching on its staggered schedule, OpenVINO, and a graph of the call of a tick."""

import dataclasses
import importlib.util
from collections import Counter

import pytest
import torch

from ontick import accel
from ontick.accel.backends.cuda_graph_call import CudaGraphCall
from ontick.accel.caching.staggered import cached_ticks
from ontick.diffusion import build
from ontick.errors import InputError
from ontick.video import FrameTransformer, Stream, stream_plan

SHAPE = (3, 16, 16)


@pytest.fixture
def network(video_network) -> FrameTransformer:
    return video_network()


def frames_of(network, plan, count=6, **how):
    stream = Stream(network, plan, SHAPE, seeds=[3], action_dim=2, **how)
    drawn = []
    while stream.frames < count:
        drawn.append(stream.advance(torch.tensor([0.5, -0.5])))
    return torch.cat(drawn, 1), stream


def planned(network, name, **changes):
    plan = stream_plan(name, network.schedule, network.frames, steps=8)
    return dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, **changes))


@pytest.mark.parametrize("name", ["rolling", "ar", "causal", "full"])
def test_a_cache_that_computes_every_block_gives_the_same_frames_bit_for_bit(network, name):
    def cached(*given):
        program = build(*given)
        return cached_ticks(program, torch.ones(len(network.blocks()), program.staircase.lag, dtype=torch.bool).numpy())

    plan = planned(network, name)
    assert torch.equal(frames_of(network, plan)[0], frames_of(network, plan, build=cached)[0])


@pytest.mark.parametrize("name", ["rolling", "causal"])
def test_a_plan_with_a_cache_computes_fewer_branches_and_draws_other_frames(network, name):
    cache = {"cache": {"scheduler": "uniform", "refreshes": 1}}
    frames, stream = frames_of(network, planned(network, name, accelerators=cache), build=accel.build)
    dense, _ = frames_of(network, planned(network, name))
    remembering = stream.frames if name == "causal" else 0
    assert (stream.program.ticked.computed < stream.calls - remembering).all()
    assert frames.isfinite().all() and not torch.equal(frames, dense)
    assert [effort.name for effort in stream.efforts] == ["FULL"]


@pytest.mark.parametrize("name", ["rolling", "ar", "causal", "full"])
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")
def test_openvino_draws_the_same_frames_up_to_rounding(network, name):
    frames, stream = frames_of(network, planned(network, name, backend="openvino"), build=accel.build)
    assert stream.program.backend == "openvino"
    torch.testing.assert_close(frames, frames_of(network, planned(network, name))[0], rtol=1e-3, atol=1e-3)


class Recordings:
    """In a CUDA graph's place: runs the work again, into the memory that the first run wrote."""

    def __init__(self):
        self.replays = Counter()

    def __call__(self, work):
        out, number = work(), len(self.replays)

        def replay():
            self.replays[number] += 1
            out.copy_(work())

        self.replays[number] = 0
        return replay, out


@pytest.mark.parametrize("name", ["rolling", "fifo", "causal"])
def test_a_graph_of_the_call_gives_the_eager_bits_and_is_captured_once_a_shape(network, name):
    recordings = Recordings()

    def graphed(*given):
        program = build(*given)
        return dataclasses.replace(program, ticked=CudaGraphCall(program, recordings))

    plan = stream_plan(name, network.schedule, network.frames)
    frames, stream = frames_of(network, plan, build=graphed)
    assert torch.equal(frames, frames_of(network, plan)[0])
    assert len(recordings.replays) == 1 and sum(recordings.replays.values()) > stream.frames


def test_a_graph_is_refused_without_a_gpu(network):
    with pytest.raises(InputError, match="needs a CUDA device"):
        frames_of(network, planned(network, "rolling", backend="cudagraph"), build=accel.build)
