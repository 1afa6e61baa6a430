import dataclasses

import pytest
import torch

from ontick.diffusion import Eager, Executor, build, load_plan, run_chunk, unroll
from ontick.diffusion.executors import NoiseByStep
from ontick.errors import InputError

SHAPE, POSITIONS, LANES = (2,), 5, 3


class Witness(Executor):
    """Keeps what it is given, and runs it."""

    name = "witness"

    def __init__(self, noise_first=True):
        self.noise_first, self.starts = noise_first, []

    def chunk(self, program, start):
        self.starts.append(start)
        return unroll(program, start)


def built(denoiser, name="ddpm-6", executor=None, **changes):
    plan = dataclasses.replace(load_plan(name), **changes)
    return dataclasses.replace(build(denoiser, plan, SHAPE, POSITIONS), executor=executor)


def test_an_executor_starts_from_births_noise_context_and_positions(mixer, keys):
    witness, context = Witness(), object()
    program = built(mixer(), executor=witness)
    seed, birth = keys(LANES)
    out = run_chunk(program, context, seed, birth)
    (start,) = witness.starts
    fresh = program.start(seed, birth)
    index = program.index(fresh.tick)
    assert torch.equal(start.x, fresh.x) and torch.equal(start.index, index)
    assert start.context is context
    assert start.noise.shape == (program.grid.steps, LANES, POSITIONS, *SHAPE)
    for level in range(program.grid.steps):
        want = program.noise(seed, birth, index, torch.full_like(index, level), torch.device("cpu"))
        assert torch.equal(start.noise[level], want)
    assert torch.equal(out, run_chunk(built(mixer()), context, seed, birth))


def test_an_executor_is_given_the_guess_that_chunks_are_born_from(mixer, keys):
    witness = Witness()
    guess = torch.rand(LANES, POSITIONS, *SHAPE)
    run_chunk(built(mixer(), executor=witness, birth="guess"), None, *keys(LANES), guess)
    assert torch.equal(witness.starts[0].x, guess)


def test_a_solver_without_noise_starts_with_none(mixer, keys):
    witness = Witness()
    run_chunk(built(mixer(), "ddim-6", witness), None, *keys(LANES))
    assert witness.starts[0].noise is None


@pytest.mark.parametrize(("name", "changes"), [("ddpm-6", {}), ("ddim-6", {"eta": 0.5})])
def test_noise_drawn_step_by_step_is_the_noise_drawn_at_once(mixer, keys, name, changes):
    first, by_step = Witness(), Witness(noise_first=False)
    results = [run_chunk(built(mixer(), name, w, **changes), None, *keys(LANES)) for w in (first, by_step)]
    assert torch.equal(*results)
    noise = by_step.starts[0].noise
    assert isinstance(noise, NoiseByStep)
    assert torch.equal(noise.all(), first.starts[0].noise)
    for level in range(6):
        assert torch.equal(noise[level], first.starts[0].noise[level])


@pytest.mark.parametrize("name", ["ddpm-6", "ddim-6", "dpmpp-6", "unipc-6"])
def test_eager_choices_give_the_same_chunk(mixer, keys, name):
    plain = run_chunk(built(mixer(), name), None, *keys(LANES))
    assert torch.equal(run_chunk(built(mixer(), name, Eager()), None, *keys(LANES)), plain)
    assert torch.equal(run_chunk(built(mixer(), name, Eager(noise_first=False)), None, *keys(LANES)), plain)
    fused = run_chunk(built(mixer(), name, Eager(fused=True)), None, *keys(LANES))
    torch.testing.assert_close(fused, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["ddpm-6", "dpmpp-6", "unipc-6"])
def test_a_fused_step_leaves_what_it_reads_as_it_was(mixer, keys, name):
    witness = Witness()
    program = built(mixer(), name, witness)
    run_chunk(program, None, *keys(LANES))
    (start,) = witness.starts
    x, noise = start.x.clone(), None if start.noise is None else start.noise.clone()
    first = unroll(program, start, fused=True).x
    assert torch.equal(start.x, x) and (noise is None or torch.equal(start.noise, noise))
    assert torch.equal(unroll(program, start, fused=True).x, first)


def test_a_rewritten_look_sees_every_step_and_starts_every_chunk_afresh(mixer, keys):
    plain, seen = built(mixer()), []

    def every_other(x, step, context, index, carry):
        seen.append((step, carry is None))
        if carry is None or step % 2 == 0:
            carry, _ = plain.look(x, step, context, index, None)
        return carry, carry

    program = dataclasses.replace(plain, rewritten=every_other, skipped=3)
    chunks = [run_chunk(program, None, *keys(LANES)) for _ in range(2)]
    assert seen == [(step, step == 6) for step in range(6, 0, -1)] * 2
    assert torch.equal(*chunks)
    assert not torch.equal(chunks[0], run_chunk(plain, None, *keys(LANES)))


def test_calls_are_those_of_all_ticks_but_the_skipped_ones(oracle, keys):
    denoiser = oracle(torch.zeros(POSITIONS, *SHAPE))
    plain = built(denoiser)
    assert plain.calls == plain.ticks * plain.calls_per_tick == 6

    def twice(x, step, context, index, carry):
        if step % 3 == 0:
            carry, _ = plain.look(x, step, context, index, None)
        return carry, carry

    program = dataclasses.replace(plain, rewritten=twice, skipped=4)
    run_chunk(program, None, *keys(1))
    assert denoiser.calls == program.calls == 2
    staggered = build(denoiser, dataclasses.replace(load_plan("ddpm-6"), stagger=2), SHAPE, POSITIONS)
    assert staggered.calls == staggered.ticks == 6 + 2 * (POSITIONS - 1)


@pytest.mark.parametrize(
    "changes", [{"accelerators": {"exact": {}}}, {"precision": "bf16"}, {"precision": "tf32"}, {"backend": "best"}]
)
def test_the_plain_builder_refuses_what_it_does_not_compile(mixer, changes):
    with pytest.raises(InputError, match=r"build it with accel\.build"):
        built(mixer(), **changes)
