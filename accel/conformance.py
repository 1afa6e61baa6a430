"""The laws of accelerators, precisions and backends, for whoever writes one: plain functions, no test runner.

    from ontick.accel.conformance import LAWS, Case

    CASE = Case(make_denoiser=..., make_obs=..., shape=(2,), positions=16, plan=plan, accelerator="reuse")

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_it_conforms(law):
        law(CASE)

A law that is broken raises AssertionError and says what was seen. Use a tiny denoiser whose every bias, scale and shift
is random (fresh initialisations hide missing terms) and a plan of few steps: a law builds two programs at most.
Chunks are four lanes wide, except where widths are compared.

Legend: B lanes, N positions that the program returns, D... the shape of one position.
"""

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..diffusion import Denoiser, Inputs, Plan, Program, State, load_plan, run_chunk, save_plan
from ..diffusion import build as build_plain
from ..errors import InputError
from .building import build
from .registry import find_accelerator

LANES = 4
ACROSS_WIDTHS = 1e-4  # kernels may sum in another order at another width or in another lane


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is under test, and for which denoiser.

    make_denoiser, make_obs  equal ones every time; make_obs(B): observations of B lanes, of which lane i's does not
                             depend on B; both on `device`
    shape, positions         as for `accel.build`
    plan                     with the accelerator, and with a precision and a backend if they are meant
    accelerator              its name in `plan.accelerators`; None: the precision or backend alone is under test
    idle                     settings under which it would do nothing
    impossible               (make_denoiser, plan) that it cannot rewrite
    tolerance                largest difference to the plain program, where the result is exact
    rows                     the positions that are compared: a program may return fewer than the plain one does
    """

    make_denoiser: Callable[[], Denoiser]
    make_obs: Callable[[int], Tensor]
    shape: tuple[int, ...]
    positions: int
    plan: Plan
    accelerator: str | None
    idle: tuple[Mapping[str, Any], ...] = ()
    impossible: tuple[tuple[Callable[[], Denoiser], Plan], ...] = ()
    tolerance: float = 2e-5
    rows: slice = field(default_factory=lambda: slice(None))
    device: str = "cpu"


# -- off, idle, impossible ---------------------------------------------------------------------------------------------


def inert_when_off(case: Case) -> None:
    """A plan without it gives the plain program's bits, before and after a program with it was built and run on the
    same denoiser, which is not changed."""
    denoiser, off = case.make_denoiser(), case.plan.plain()
    weights = _weights(denoiser)
    before = _chunk(case, build_plain(denoiser, off, case.shape, case.positions))
    _chunk(case, _built(case, denoiser=denoiser))
    after = _chunk(case, _built(case, off, denoiser))
    _same(before, after, "the plan without it, after it was used on this denoiser, differs from the plain program")
    for name, tensor in _weights(denoiser).items():
        _check(name in weights and torch.equal(tensor, weights[name]), f"the denoiser was changed: {name} differs")
    _check(len(weights) == len(_weights(denoiser)), "the denoiser was changed: it lost weights")


def refuses_when_idle(case: Case) -> None:
    """Settings under which it would do nothing are refused with a reason."""
    for settings in case.idle:
        _refused(case, _with_settings(case, settings), case.make_denoiser, f"the idle settings {settings}")


def refuses_the_impossible(case: Case) -> None:
    """What cannot be rewritten is refused with a reason, and so are settings that nobody knows."""
    for make_denoiser, plan in case.impossible:
        _refused(case, plan, make_denoiser, f"the impossible {plan}")
    if case.accelerator is not None:
        unknown = _with_settings(case, {"no_such_setting": 1})
        _refused(case, unknown, case.make_denoiser, "a setting that nobody knows")


# -- what is claimed is so ---------------------------------------------------------------------------------------------


def counts_its_calls(case: Case) -> None:
    """A chunk makes exactly `program.calls` network calls, or, of a `dynamic` program, at most so many. Whoever calls a
    network branch by branch asks for its blocks once a call, and that counts as one.

    They are counted eagerly, since a compiled call is not seen, and at the denoisers themselves (the one given and the
    one that the program holds): a rewritten look may have closed over an earlier program, but not over another network.
    """
    denoiser = case.make_denoiser()
    program = _built(case, dataclasses.replace(case.plan, backend="eager"), denoiser)
    with _counted(denoiser, program.denoiser) as counts:
        _chunk(case, program)
    most = 0 < counts["calls"] <= program.calls
    right = most if program.dynamic else counts["calls"] == program.calls
    _check(right, f"made {counts['calls']} calls, program.calls says {program.calls}")


def exact_means_exact(case: Case) -> None:
    """At fp32, accelerators that are all exact give the plain program's chunk up to rounding."""
    exact = all(find_accelerator(name).exact for name in case.plan.accelerators)
    if not exact or case.plan.precision != "fp32":
        return
    plain = _chunk(case, build_plain(case.make_denoiser(), case.plan.plain(), case.shape, case.positions))
    _close(_chunk(case, _built(case))[:, case.rows], plain[:, case.rows], case.tolerance, "it is not exact")


# -- nothing leaks -----------------------------------------------------------------------------------------------------


def nothing_leaks_across_chunks(case: Case) -> None:
    """A chunk after another equals the same chunk before it, and that of a program that has run nothing."""
    program = _built(case)
    first = _chunk(case, program)
    _chunk(case, program, _lanes(case, first=1), birth=3)
    _same(first, _chunk(case, program), "the same chunk differs after another one was run")
    _same(first, _chunk(case, _built(case)), "a program that has run differs from a fresh one")


def nothing_leaks_across_lanes(case: Case) -> None:
    """At a fixed width a lane's bits do not depend on what the others hold; across widths they agree to rounding."""
    program, lanes = _built(case), _lanes(case)
    alone, others = _Lanes(*(part[:1] for part in lanes)), _lanes(case, first=LANES)
    beside = _Lanes(*(torch.cat([one, other[1:]]) for one, other in zip(alone, others, strict=True)))
    chunk = _chunk(case, program, lanes)
    _same(chunk[0], _chunk(case, program, beside)[0], "lane 0 depends on what the other lanes hold")
    if case.plan.precision == "fp32":
        _close(_chunk(case, program, alone)[0], chunk[0], ACROSS_WIDTHS, "lane 0 alone differs from lane 0 of four")


def nothing_leaks_across_positions(case: Case) -> None:
    """Noise is keyed by (seed, birth, position), so it goes with a lane to another place in the batch, and another
    birth moves every position."""
    program, lanes = _built(case), _lanes(case)
    chunk, reborn = _chunk(case, program, lanes), _chunk(case, program, lanes, birth=1)
    moved = (chunk != reborn)[:, case.rows].flatten(2).any(-1).any(0)  # in a lane at least: others may sit at the clip
    _check(bool(moved.all()), f"another birth left positions as they were: {(~moved).nonzero()[:, 0].tolist()}")
    if case.plan.precision == "fp32":
        turned = _chunk(case, program, _Lanes(*(part.flip(0) for part in lanes)))
        _close(turned.flip(0), chunk, ACROSS_WIDTHS, "lanes in another order give other results")


def staggered_lanes_reset_one_by_one(case: Case) -> None:
    """With stagger 1 the plan is refused with a reason, or a lane that is reset in flight is a fresh lane bit for bit
    and the others do not notice."""
    staggered = dataclasses.replace(case.plan, stagger=1)
    try:
        program = _built(case, staggered)
    except InputError as error:
        _explained(str(error), "a staggered plan")
        return
    lanes = _lanes(case)
    begun = program.start(lanes.seed, torch.zeros_like(lanes.seed), device=case.device)
    fresh = program.start(lanes.seed, torch.ones_like(lanes.seed), device=case.device)
    only = torch.arange(LANES) == 1
    with torch.inference_mode():
        inputs = Inputs(program.prepare(lanes.obs))
        flying = _three_ticks(program, begun, inputs)
        mixed = _three_ticks(program, program.reset(flying, only, fresh), inputs).x
        _same(mixed[1], _three_ticks(program, fresh, inputs).x[1], "a lane that was reset in flight is no fresh lane")
        _same(mixed[~only], _three_ticks(program, flying, inputs).x[~only], "lanes noticed that another was reset")


def threads_agree_or_are_refused(case: Case) -> None:
    """A program that one thread has run gives another thread the same bits, or refuses it with a reason."""
    program = _built(case)
    mine, theirs = _chunk(case, program), []

    def work() -> None:
        try:
            theirs.append(_chunk(case, program))
        except BaseException as error:
            theirs.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(theirs[0], InputError):
        _explained(str(theirs[0]), "a second thread")
    elif isinstance(theirs[0], BaseException):
        raise AssertionError(f"a second thread failed: {theirs[0]!r}") from theirs[0]
    else:
        _same(mine, theirs[0], "a second thread gets other bits")
    _same(mine, _chunk(case, program), "the first thread gets other bits once a second has tried")


# -- plans and seeds ---------------------------------------------------------------------------------------------------


def plans_survive_the_round_trip(case: Case) -> None:
    """A plan is data: what comes back from a dict and from YAML is equal and builds the same bits."""
    copy = Plan.from_dict(case.plan.to_dict())
    _check(copy == case.plan, f"from_dict(to_dict) gives {copy}, the plan is {case.plan}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        save_plan(case.plan, path)
        loaded = load_plan(str(path))
    _check(loaded == case.plan, f"YAML gives {loaded}, the plan is {case.plan}")
    _same(_chunk(case, _built(case, loaded)), _chunk(case, _built(case)), "the loaded plan gives other bits")


def equal_seeds_give_equal_bits(case: Case) -> None:
    """Two builds agree bit for bit on equal seeds, and other seeds give something else."""
    program, lanes = _built(case), _lanes(case)
    chunk = _chunk(case, program, lanes)
    _same(chunk, _chunk(case, _built(case), lanes), "two builds differ")
    other = _chunk(case, program, lanes._replace(seed=lanes.seed + 1000))
    for lane in range(LANES):
        _check(not torch.equal(chunk[lane], other[lane]), f"lane {lane} does not depend on its seed")


Law = Callable[[Case], None]
LAWS: tuple[Law, ...] = (
    inert_when_off,
    refuses_when_idle,
    refuses_the_impossible,
    counts_its_calls,
    exact_means_exact,
    nothing_leaks_across_chunks,
    nothing_leaks_across_lanes,
    nothing_leaks_across_positions,
    staggered_lanes_reset_one_by_one,
    threads_agree_or_are_refused,
    plans_survive_the_round_trip,
    equal_seeds_give_equal_bits,
)


# -- how they look -----------------------------------------------------------------------------------------------------


class _Lanes(NamedTuple):
    """obs: [B, ...]; seed: [B] int64, host."""

    obs: Tensor
    seed: Tensor


def _lanes(case: Case, first: int = 0) -> _Lanes:
    return _Lanes(case.make_obs(first + LANES)[first:], torch.arange(11 + first, 11 + first + LANES))


def _built(case: Case, plan: Plan | None = None, denoiser: Denoiser | None = None) -> Program:
    return build(denoiser or case.make_denoiser(), plan or case.plan, case.shape, case.positions, device=case.device)


def _with_settings(case: Case, settings: Mapping[str, Any]) -> Plan:
    _check(case.accelerator in case.plan.accelerators, f"{case.accelerator} is not in the plan of the case")
    return dataclasses.replace(case.plan, accelerators={**case.plan.accelerators, case.accelerator: dict(settings)})


def _chunk(case: Case, program: Program, lanes: _Lanes | None = None, birth: int = 0) -> Tensor:
    """[B, N, D...], copied: an executor may reuse its memory."""
    obs, seed = lanes or _lanes(case)
    with torch.inference_mode():
        return run_chunk(program, program.prepare(obs), seed, torch.full_like(seed, birth), device=case.device).clone()


def _three_ticks(program: Program, state: State, inputs: Inputs) -> State:
    for _ in range(3):
        state, _ = program.tick(state, inputs)
    return state


def _weights(denoiser: Denoiser) -> dict[str, Tensor]:
    if not isinstance(denoiser, nn.Module):
        return {}
    return {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}


@contextmanager
def _counted(*denoisers: Denoiser) -> Iterator[dict[str, int]]:
    """Counts calls of `predict` and `blocks`; one that makes another is one call."""
    counts, depth = {"calls": 0}, [0]

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts["calls"] += depth[0] == 0
            depth[0] += 1
            try:
                return method(*args, **kwargs)
            finally:
                depth[0] -= 1

        return call

    different = {id(denoiser): denoiser for denoiser in denoisers}.values()
    for denoiser in different:
        vars(denoiser).update(predict=counting(denoiser.predict), blocks=counting(denoiser.blocks))
    try:
        yield counts
    finally:
        for denoiser in different:
            del vars(denoiser)["predict"], vars(denoiser)["blocks"]


def _refused(case: Case, plan: Plan, make_denoiser: Callable[[], Denoiser], what: str) -> None:
    try:
        _built(case, plan, make_denoiser())
    except InputError as error:
        return _explained(str(error), what)
    raise AssertionError(f"{what} was not refused")


def _explained(message: str, what: str) -> None:
    _check(
        "\n" not in message and len(message.split()) > 3,
        f"{what} was refused without a reason in one line: {message!r}",
    )


def _same(got: Tensor, wanted: Tensor, message: str) -> None:
    if got.shape == wanted.shape and torch.equal(got, wanted):
        return
    raise AssertionError(f"{message} (shapes {tuple(got.shape)} and {tuple(wanted.shape)}, {_distance(got, wanted)})")


def _close(got: Tensor, wanted: Tensor, tolerance: float, message: str) -> None:
    _check(got.shape == wanted.shape, f"{message}: shapes {tuple(got.shape)} and {tuple(wanted.shape)}")
    near = bool(((got - wanted).abs() <= tolerance).all())  # false for NaN
    _check(near, f"{message} ({_distance(got, wanted)}, tolerance {tolerance:g})")


def _distance(a: Tensor, b: Tensor) -> str:
    return f"largest difference {(a - b).abs().max():.3g}" if a.shape == b.shape else "not comparable"


def _check(holds: bool, message: str) -> None:
    if not holds:  # not the statement: `python -O` would keep no law
        raise AssertionError(message)
