"""Block caching for a network that is not ours, by hooks: one line, and nothing of it is rewritten.

    attachment = attach(model, "uniform-last-10")       or a plan of its sampler, and schedule=load_schedule(...)
    ...                                                 the model's own sampling loop, chunk after chunk
    attachment.detach()

Residual branches are found in torch's transformer layers (the methods _sa_block, _mha_block, _ff_block) and in blocks
with an attention and a feed-forward child, as diffusers' are (attn1, attn2, ff); or they are the modules that the
caller names. At the k-th forward of the model a branch is computed, or what it gave last is given once more. K forwards
are a chunk; then the cache is empty again.

What stands between branches is computed at every forward: norms, embeddings, and a gate that multiplies a branch's
output afterwards, so that a fresh gate meets the cached output, as in FORA (arXiv 2407.01425). A post-norm layer is
cached likewise: its norm, after the addition, is fresh. torch's fused encoder layer is not used while attached: all
steps computed are the bits of its unfused one.

Legend: b blocks, K forwards of a chunk, B lanes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..diffusion import Plan, load_plan
from ..errors import InputError
from .caching.schedule import CacheSchedule, check_fits
from .caching.schedulers import UNCALIBRATED
from .fingerprint import fingerprint
from .sites import Site, branches


class Count(NamedTuple):
    """How often a branch was computed, and how often its last output was given again."""

    computed: int = 0
    reused: int = 0


# -- hooks -------------------------------------------------------------------------------------------------------------


class _Branch:
    """Stands for a branch: asks `answer(site index, the branch, its arguments)`."""

    def __init__(self, site: Site, answer: Callable[..., Any]) -> None:
        self.site, self._answer = site, answer
        self._hidden = vars(site.module).get(site.method)  # an instance's own method, of another library's hooks
        self._plain = getattr(site.module, site.method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(self.site.name, self._plain, args, kwargs)

    def install(self) -> None:
        vars(self.site.module)[self.site.method] = self

    def remove(self) -> None:
        if vars(self.site.module).get(self.site.method) is not self:
            raise InputError(f"{self.site.name} was hooked again after attach; undo that first, then detach")
        del vars(self.site.module)[self.site.method]
        if self._hidden is not None:
            vars(self.site.module)[self.site.method] = self._hidden


class _Hooks:
    """The branches of a model and its forwards, until removed. begin, end: around each forward of the model."""

    def __init__(
        self, model: nn.Module, sites: list[Site], answer: Callable[..., Any], begin: Callable, end: Callable
    ) -> None:
        _check_runs_plainly(model)
        if any(isinstance(vars(site.module).get(site.method), _Branch) for site in sites):
            raise InputError(f"{type(model).__name__} is attached already; detach() that attachment first")
        self._branches = [_Branch(site, answer) for site in sites]
        for branch in self._branches:
            branch.install()
        self._handles = [
            model.register_forward_pre_hook(lambda called, _: begin(called)),
            model.register_forward_hook(lambda *_: end()),
        ]
        # torch's fused encoder layer calls no branch; it stands back where a layer has hooks
        fused = [m for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer)]
        self._handles += [layer.register_forward_pre_hook(lambda *_: None) for layer in fused]

    def remove(self) -> None:
        for branch in self._branches:
            branch.remove()
        for handle in self._handles:
            handle.remove()
        self._branches, self._handles = [], []


def _check_runs_plainly(model: nn.Module) -> None:
    name = type(model).__name__
    _check_evaluates(model)
    if isinstance(model, torch.jit.ScriptModule) or any(m._compiled_call_impl is not None for m in model.modules()):
        raise InputError(f"{name} is compiled, and a compiled call does not see which forward it is; attach it plain")
    if hasattr(model, "_orig_mod"):
        raise InputError(f"{name} is compiled, and a compiled call does not see which forward it is; attach _orig_mod")


def _check_evaluates(model: nn.Module) -> None:
    if model.training:
        raise InputError(
            f"{type(model).__name__} is in training mode, and reused outputs have no gradient; call eval()"
        )


# -- attach ------------------------------------------------------------------------------------------------------------


class Attachment:
    """A model whose branches are cached; made by `attach`. Also a context manager, which detaches.

    names    of the branches, in order
    refresh  [b, K] bool, by which they are computed
    counts   name -> Count, of whole forwards since attach
    """

    def __init__(self, model: nn.Module, sites: list[Site], refresh: np.ndarray) -> None:
        self.names, self.refresh = tuple(site.name for site in sites), refresh
        self.counts = dict.fromkeys(self.names, Count())
        self._row = {name: b for b, name in enumerate(self.names)}
        self._fresh()
        self._hooks: _Hooks | None = _Hooks(model, sites, self._answer, self._begin, self._end)

    def reset(self) -> None:
        """The next forward begins a chunk; for a loop that was left before its end."""
        self._fresh()

    def detach(self) -> None:
        """The model as it was, bit for bit. Further calls do nothing."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        self._fresh()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    # -- a forward ------------------------------------------------------------------------------------------------

    def _fresh(self) -> None:
        self._k = 0
        self._cache: dict[str, tuple[Any, Any]] = {}  # name -> what its input was like, its output
        self._called: dict[str, bool] | None = None  # name -> computed, in this forward; None between them

    def _begin(self, model: nn.Module) -> None:
        _check_evaluates(model)
        self._called = {}

    def _answer(self, name: str, branch: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._called is None:  # somebody calls a part of the model by itself
            return branch(*args, **kwargs)
        if name in self._called:
            raise InputError(
                f"{name} is called twice in one forward, so it is no residual branch; leave it out (blocks)"
            )
        like, computed = _likeness(args, kwargs), bool(self.refresh[self._row[name], self._k])
        if self._k and like != self._cache[name][0]:
            raise InputError(
                f"{name}: forward {self._k + 1} of {self.refresh.shape[1]} got {_told(like)}, and this chunk began "
                f"with {_told(self._cache[name][0])}; call reset() before another batch"
            )
        self._called[name] = computed
        if computed:
            out = branch(*args, **kwargs)
            if any(tensor.requires_grad for tensor in _tensors(out)):
                raise InputError(f"{name} was run with gradients, which a cache would keep; use torch.inference_mode()")
            self._cache[name] = (like, _copied(name, out))
            return out
        return _copied(name, self._cache[name][1])

    def _end(self) -> None:
        called, self._called = self._called or {}, None
        silent = [name for name in self.names if name not in called]
        if silent:
            raise InputError(
                f"{', '.join(silent)}: not called in a forward of the model, so it is no branch that can be cached; "
                "name those that are (blocks)"
            )
        for name, computed in called.items():
            count = self.counts[name]
            self.counts[name] = Count(count.computed + computed, count.reused + (not computed))
        self._k += 1
        if self._k == self.refresh.shape[1]:
            self._fresh()


def attach(
    model: nn.Module,
    plan: Plan | str,
    *,
    schedule: CacheSchedule | None = None,
    blocks: Mapping[str, nn.Module] | None = None,
) -> Attachment:
    """Cache the residual branches of a torch model.

    model     in evaluation mode, called once a step by its own sampling loop, without gradients
    plan      a name or a plan, of which two things are read: what the loop's steps are (grid, solver and eta), and,
              where no schedule is given, accelerators["cache"] with scheduler and refreshes
    schedule  for exactly these branches, this sampler, and, where it has a fingerprint, these weights
    blocks    name -> module, where the branches are not found by themselves

    Raises InputError with the reason where that cannot be done. What a hook cannot see is the caller's to say: where
    a loop is left before its end, call `reset()`.
    """
    sites = branches(model, blocks)
    plan = load_plan(plan) if isinstance(plan, str) else plan
    if schedule is None:
        refresh = _uniform(plan, len(sites))
    else:
        _check_schedule(schedule, model, tuple(site.name for site in sites), plan)
        refresh = schedule.refresh
    return Attachment(model, sites, refresh.copy())


def _uniform(plan: Plan, blocks: int) -> np.ndarray:
    """[b, K] bool of a plan with {scheduler, refreshes}."""
    settings = plan.accelerators.get("cache")
    if settings is None:
        raise InputError(
            f"plan {plan.name!r} caches nothing; wanted one that does, as uniform-last-10, "
            "or schedule=load_schedule(file)"
        )
    scheduler, refreshes = settings.get("scheduler"), settings.get("refreshes")
    known = isinstance(scheduler, str) and scheduler in UNCALIBRATED
    if set(settings) != {"scheduler", "refreshes"} or not known or type(refreshes) is not int:
        raise InputError(
            f"plan {plan.name!r}, cache: got {settings}; a network that is not ours takes scheduler "
            f"({', '.join(UNCALIBRATED)}) and refreshes, a whole number, alone; "
            "give a calibrated one as schedule=load_schedule(file)"
        )
    return UNCALIBRATED[scheduler](blocks, _steps(plan), refreshes)


def _steps(plan: Plan) -> int:
    return len(plan.grid.labels) if plan.grid.kind == "custom" else plan.grid.steps


def _check_schedule(schedule: CacheSchedule, model: nn.Module, names: tuple[str, ...], plan: Plan) -> None:
    if "cache" in plan.accelerators:
        raise InputError(f"plan {plan.name!r} brings a cache and schedule= another; give the plan of the sampler alone")
    network = "" if schedule.network is None else fingerprint(model)  # reads all weights
    check_fits(schedule, names, plan, _steps(plan), network, "the schedule")


# -- calibration -------------------------------------------------------------------------------------------------------


def record(
    model: nn.Module, run: Callable[[], Any], *, blocks: Mapping[str, nn.Module] | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """What every branch puts out along one chunk: `run()` is the whole sampling loop -> (names, features).

    features: [b, K, B, ...] float32 on the host, for schedulers to look at; K, the forwards that `run` made. Raises
    InputError where branches differ in shape (name some that do not: blocks) or give no single tensor.
    """
    sites = branches(model, blocks)
    kept: dict[str, list[Tensor]] = {site.name: [] for site in sites}

    def answer(name: str, branch: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        out = branch(*args, **kwargs)
        if not isinstance(out, Tensor):
            raise InputError(f"{name} gives {type(out).__name__}, wanted one tensor; name other branches (blocks)")
        kept[name].append(out.detach().to("cpu", torch.float32, copy=True))
        return out

    with _recording(model, sites, answer):
        run()
    shapes = {name: {tuple(out.shape) for out in outs} for name, outs in kept.items()}
    if len(set().union(*shapes.values())) != 1 or len({len(outs) for outs in kept.values()}) != 1:
        got = ", ".join(f"{name}: {len(kept[name])} x {sorted(shape)}" for name, shape in shapes.items())
        raise InputError(f"branches must all be called at every forward, with one shape of output; got {got}")
    return tuple(kept), torch.stack([torch.stack(outs) for outs in kept.values()])


@contextmanager
def _recording(model: nn.Module, sites: list[Site], answer: Callable[..., Any]) -> Iterator[None]:
    hooks = _Hooks(model, sites, answer, lambda model: None, lambda: None)
    try:
        yield
    finally:
        hooks.remove()


# -- tensors -----------------------------------------------------------------------------------------------------------


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of an output: one, or a tuple of them."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return [part for part in parts if isinstance(part, Tensor)]


def _copied(name: str, value: Any) -> Any:
    """An output of its own, which the model may change in place."""
    if type(value) in (tuple, list):
        return type(value)(_copied(name, part) for part in value)
    if value is None or isinstance(value, Tensor):
        return None if value is None else value.clone()
    raise InputError(f"{name} gives {type(value).__name__}, wanted tensors or a tuple of them; leave it out (blocks)")


def _likeness(args: tuple, kwargs: dict[str, Any]) -> tuple | None:
    """Shape, type and device of the first tensor that a branch is given."""
    first = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    return None if first is None else (tuple(first.shape), first.dtype, first.device)


def _told(like: tuple | None) -> str:
    return "no tensor" if like is None else f"{list(like[0])} {str(like[1]).removeprefix('torch.')} on {like[2]}"
