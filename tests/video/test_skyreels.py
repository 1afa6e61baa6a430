"""SkyReels-V2's transformer and its pipeline in diffusers are the reference: equal forwards, equal update masks, equal
latents of whole clips; and what is remembered of clean frames changes nothing."""

import itertools

import numpy as np
import pytest
import torch

from ontick import accel
from ontick._torchvision import ensure_torchvision
from ontick.benchmarks.video_peer import peer_pipeline
from ontick.diffusion import GridSpec, Inputs, Plan, Rows, Staircase, build
from ontick.errors import InputError
from ontick.video.contract import Memory, Sight
from ontick.video.skyreels import SkyReelsDenoiser

diffusers = pytest.importorskip("diffusers", reason="the reference is diffusers")
pytest.importorskip("transformers", reason="the pipeline of diffusers imports it")
ensure_torchvision()  # transformers imports it

Pipeline, Transformer = diffusers.SkyReelsV2DiffusionForcingPipeline, diffusers.SkyReelsV2Transformer3DModel
SIZE, TEXT, CHANNELS, LABELS = (4, 6), 16, 4, 1000
TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def reference(block=1, **changes):
    """Diffusers' tiny transformer, every weight random: fresh ones hide missing biases, scales and shifts."""
    torch.manual_seed(3)
    model = Transformer(**{**TINY, "num_frame_per_block": block, **changes}).eval()
    model.requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() < 2 or "scale_shift_table" in name:
            noise = torch.randn_like(weight) * 0.3
            weight.copy_(1 + noise if "norm" in name and name.endswith("weight") else noise)
    return model


def ours(model, **settings):
    return SkyReelsDenoiser.from_diffusers(model, SIZE, **settings)


def prompt(lanes=1):
    return torch.randn(lanes, 7, TEXT, generator=torch.Generator().manual_seed(11))


def frames(count, lanes=1, seed=5):
    return torch.randn(lanes, count, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(seed))


def rows(count, lanes=1, start=0, state=None):
    return Rows(torch.arange(start, start + count).expand(lanes, -1), None, state)


def forward(model, x, timesteps, text, **told):
    out = model(x.transpose(1, 2), timesteps, text, enable_diffusion_forcing=True, return_dict=False, **told)[0]
    return out.transpose(1, 2)


def generator():
    return torch.Generator().manual_seed(8)


def pipeline_latents(model, program, positions, text):
    """[1, N, C, H, W]; the noise of a frame is that of `generator`."""
    made = peer_pipeline(model, program.grid)(
        prompt=None,
        prompt_embeds=text,
        height=SIZE[0] * 8,
        width=SIZE[1] * 8,
        num_frames=4 * (positions - 1) + 1,
        num_inference_steps=program.grid.steps,
        ar_step=program.staircase.stagger,
        guidance_scale=1.0,
        generator=generator(),
        output_type="latent",
    )
    return made.frames.transpose(1, 2)


def plan_of(steps, stagger, block, shift=1.0, **more):
    grid = GridSpec(kind="flow", steps=steps, shift=shift)
    return Plan(name="ad", grid=grid, solver="euler", stagger=stagger, block=block, **more)


def with_noise(program, positions):
    noise = torch.randn(1, CHANNELS, positions, *SIZE, generator=generator()).transpose(1, 2)
    key = torch.zeros(1, dtype=torch.int64)
    return program.start(key, key)._replace(x=noise), noise


def engine_latents(program, positions, text):
    state, _ = with_noise(program, positions)
    inputs = Inputs(program.prepare(text))
    for _ in range(program.ticks):
        state, _ = program.tick(state, inputs)
    return state.x


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 2])
@torch.inference_mode()
def test_a_forward_pass_is_that_of_diffusers(block, lanes):
    model = reference(block)
    network, x, text = ours(model), frames(6, lanes), prompt(lanes)
    timesteps = torch.tensor([[0, 17, 250, 500, 750, 999]]).repeat(lanes, 1)
    out = network.predict(x, timesteps / LABELS, network.prepare(text), rows(6, lanes)).x
    assert network.causal_block == (block if block > 1 else 0)
    torch.testing.assert_close(out, forward(model, x, timesteps, text), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"cross_attn_norm": False}, {"inject_sample_info": True}, {"out_channels": 3}])
@pytest.mark.parametrize("fps", [16, 24])
@torch.inference_mode()
def test_kinds_of_the_transformer_are_equal_too(changes, fps):
    model = reference(**changes)
    network, x, text = ours(model, fps=fps), frames(3), prompt()
    timesteps = torch.tensor([[0, 300, 999]])
    out = network.predict(x, timesteps / LABELS, network.prepare(text), rows(3)).x
    wanted = forward(model, x, timesteps, text, fps=[0 if fps == 16 else 1])
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_bf16_stays_as_near_as_that_of_diffusers():
    model, x, text, timesteps = reference(), frames(4), prompt(), torch.tensor([[0, 300, 600, 999]])
    exact = forward(model, x, timesteps, text)
    half = reference().to(torch.bfloat16)
    network = ours(half)
    out = network.predict(x, timesteps / LABELS, network.prepare(text), rows(4)).x.float()
    theirs = forward(half, x.bfloat16(), timesteps, text.bfloat16()).float()
    assert (out - exact).square().mean() < 1.5 * (theirs - exact).square().mean() + 1e-6


def test_what_cannot_be_loaded_is_refused():
    with pytest.raises(InputError, match="wanted patches of 1 frame"):
        ours(Transformer(**{**TINY, "patch_size": (2, 2, 2)}))
    with pytest.raises(InputError, match="text-to-video"):
        ours(Transformer(**TINY, image_dim=8, added_kv_proj_dim=24))
    with pytest.raises(InputError, match="do not divide"):
        SkyReelsDenoiser.from_diffusers(reference(), (4, 5))
    more = reference()
    more.another = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match=r"another\.weight"):
        ours(more)


@torch.inference_mode()
def test_block_by_block_is_predict():
    network, x, context = ours(reference(2)), frames(4), prompt()
    context = network.prepare(context)
    label, told_rows = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), rows(4)
    program = build(network, plan_of(4, 2, 2), (CHANNELS, *SIZE), 4)
    asked = program.asked(x, 1, context, told_rows.index)._replace(label=label)
    assert network.is_stream
    assert [block.kind for block in network.blocks()] == ["self_attention", "cross_attention", "feed_forward"] * 2
    h, told = network.enter(x, asked), network.tell(asked)
    assert h.shape == (1, 4, 6, 24)
    for block in network.blocks():
        h = h + block.branch(h, told)
    assert torch.equal(network.leave(h, asked), network.predict(x, label, context, told_rows).x)


@torch.inference_mode()
def test_lanes_do_not_see_each_other():
    network, text = ours(reference()), prompt(2)
    x, label = frames(3, 2), torch.tensor([[0.1, 0.5, 1.0], [0.0, 0.2, 0.4]])
    both = network.predict(x, label, network.prepare(text), rows(3, 2)).x
    for lane in range(2):
        one = slice(lane, lane + 1)
        alone = network.predict(x[one], label[one], network.prepare(text[one]), rows(3)).x
        torch.testing.assert_close(both[one], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("steps", "positions", "block", "stagger"), [*itertools.product((4, 6, 10), (4, 6, 8), (1, 2), range(6))]
)
def test_the_update_masks_of_the_pipeline_are_our_staircase(steps, positions, block, stagger):
    template = torch.linspace(999, 100, steps)
    _, _, mask, _ = Pipeline.generate_timestep_matrix(
        None, positions, template, positions, ar_step=stagger, causal_block_size=block
    )
    done = Staircase(steps, stagger, block).table(positions)
    moved = np.diff(np.concatenate([np.zeros((1, positions), int), done]), axis=0) > 0
    assert np.array_equal(mask.numpy(), moved)


@pytest.mark.parametrize(
    ("steps", "stagger", "block", "shift"),
    [
        *[(4, 0, 1, 1.0), (5, 0, 1, 3.0), (4, 1, 1, 1.0), (6, 2, 1, 3.0), (5, 3, 1, 8.0), (4, 7, 1, 1.0)],
        *[(4, 0, 2, 1.0), (4, 1, 2, 1.0), (6, 2, 2, 3.0), (6, 3, 3, 8.0), (4, 4, 2, 1.0), (5, 9, 3, 3.0)],
    ],
)
@torch.inference_mode()
def test_a_clip_is_that_of_the_pipeline(steps, stagger, block, shift):
    model, positions, text = reference(block), 6, prompt()
    program = build(
        ours(model, whole_timesteps=True), plan_of(steps, stagger, block, shift), (CHANNELS, *SIZE), positions
    )
    wanted = pipeline_latents(model, program, positions, text)
    torch.testing.assert_close(engine_latents(program, positions, text), wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_openvino_call_is_the_eager_one():
    pytest.importorskip("openvino", reason="the backend needs openvino")
    network, text = ours(reference()), prompt()
    eager, fast = (accel.build(network, plan_of(4, 2, 1, backend=b), (CHANNELS, *SIZE), 4) for b in ("eager", "best"))
    wanted = engine_latents(eager, 4, text)
    torch.testing.assert_close(engine_latents(fast, 4, text), wanted, atol=1e-4, rtol=0)
    assert fast.backend == "openvino"


def remembering_latents(network, plan, positions, text, window=None):
    """Blocks one after another, each shown alone beside what is remembered of the clean frames before it; window: a
    memory of that many places from the first call on, of which the first are empty."""
    program = build(network, plan, (CHANNELS, *SIZE), None)
    first, context, block = torch.zeros(1, dtype=torch.int64), program.prepare(text), plan.block
    state, noise = with_noise(program, positions)
    memory, out = None, []
    if window:
        width = network.config.width
        held = torch.zeros(1, window, network.config.num_layers, 2, 6, width)
        memory = Memory(held, torch.zeros(1, window, dtype=torch.bool))
    for start in range(0, positions, block):
        state = state._replace(x=noise[:, start : start + block])
        for _ in range(program.grid.steps):
            state, outputs = program.tick(state, Inputs(context, state=Sight(first, memory)))
        assert outputs.clean.all() and torch.equal(outputs.index[0], torch.arange(start, start + block))
        out.append(outputs.x)
        clean = torch.zeros(1, block)
        new = network.remember(outputs.x, clean, context, rows(block, start=start, state=Sight(first, memory)))
        memory = grown(memory, new, window)
    return torch.cat(out, 1)


def grown(memory, new, window):
    there = torch.ones(new.shape[:2], dtype=torch.bool)
    if memory is None:
        return Memory(new, there)
    held, there = torch.cat([memory.held, new], 1), torch.cat([memory.there, there], 1)
    return Memory(held[:, -window:], there[:, -window:]) if window else Memory(held, there)


@pytest.mark.parametrize(("steps", "block", "shift"), [(4, 2, 1.0), (5, 3, 3.0), (3, 1, 8.0)])
@pytest.mark.parametrize("window", [None, 6])
@torch.inference_mode()
def test_what_is_remembered_is_what_would_be_seen(steps, block, shift, window):
    model, positions, text = reference(block), 6, prompt()
    network = ours(model, whole_timesteps=True).causal(block)
    plan = plan_of(steps, steps, block, shift)
    seeing = engine_latents(build(network, plan, (CHANNELS, *SIZE), positions), positions, text)
    remembering = remembering_latents(network, plan, positions, text, window)
    torch.testing.assert_close(remembering, seeing, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("steps", "stagger", "block"), [(4, 4, 2), (5, 8, 3)])
@torch.inference_mode()
def test_what_is_remembered_gives_the_clip_of_the_pipeline(steps, stagger, block):
    model, positions, text = reference(block), 6, prompt()
    network, plan = ours(model, whole_timesteps=True), plan_of(steps, stagger, block)
    program = build(network, plan, (CHANNELS, *SIZE), positions)
    wanted = pipeline_latents(model, program, positions, text)
    torch.testing.assert_close(remembering_latents(network, plan, positions, text), wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_frames_before_the_first_are_not_seen():
    network, text = ours(reference(2)), prompt()
    context, label = network.prepare(text), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    sight = Sight(torch.tensor([2]))
    x, y = frames(4), frames(4, seed=6)
    y[:, 2:] = x[:, 2:]
    one, other = (network.predict(z, label, context, rows(4, state=sight)).x for z in (x, y))
    assert torch.equal(one[:, 2:], other[:, 2:]) and not torch.equal(one[:, :2], other[:, :2])
    assert one.isfinite().all()


def test_the_tables_grow_and_serve_training_after_inference():
    network = ours(reference())
    with torch.inference_mode():
        network.predict(frames(2), torch.zeros(1, 2), network.prepare(prompt()), rows(2))
    network.requires_grad_(True)
    network.predict(frames(5), torch.zeros(1, 5), network.prepare(prompt()), rows(5)).x.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
