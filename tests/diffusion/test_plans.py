import pytest

from ontick.diffusion import GridSpec, Plan, load_plan, named_plan, plan_names, save_plan, schedule
from ontick.errors import InputError


@pytest.mark.parametrize("name", ["ddpm-100", "ddim-10", "dpmpp-7", "unipc-5"])
def test_named_plans_build_on_the_trained_schedule(name):
    plan = load_plan(name)
    grid = plan.grid.build(schedule("squaredcos_cap_v2", 100))
    assert plan.name == name and grid.steps == int(name.split("-")[1])


def test_plans_survive_yaml(tmp_path):
    plans = [
        load_plan("dpmpp-10"),
        Plan(name="a", grid=GridSpec(kind="custom", labels=(0, 3, 9)), solver="ddim", eta=0.5, birth="guess"),
        Plan(name="b", grid=GridSpec(steps=6), solver="ddpm", stagger=2, block=3, view="partitions", pieces=2),
        Plan(name="v", grid=GridSpec(steps=6), solver="ddim", stagger=6, block=4, behind=8, ahead=4),
        Plan(name="c", grid=GridSpec(kind="flow", steps=4, shift=3.0), solver="euler"),
        Plan(
            name="d",
            grid=GridSpec(steps=3),
            solver="ddim",
            accelerators={"exact": {"fold": False, "rows": "auto"}, "other": {"steps": [1, 2], "share": 0.5}},
            precision="bf16",
            backend="best",
        ),
    ]
    for plan in plans:
        save_plan(plan, tmp_path / "plan.yaml")
        assert load_plan(str(tmp_path / "plan.yaml")) == plan


@pytest.mark.parametrize(
    ("name", "solver", "steps", "precision"),
    [
        ("exact", "ddpm", 100, "fp32"),
        ("bf16", "ddpm", 100, "bf16"),
        ("int8", "ddpm", 100, "int8"),
    ],
)
def test_presets_are_named_samplers_on_the_best_backend(tmp_path, name, solver, steps, precision):
    assert name in plan_names()
    plan = load_plan(name)
    sampler = named_plan(f"{solver}-{steps}")
    assert (plan.name, plan.grid, plan.solver) == (name, sampler.grid, sampler.solver)
    assert (plan.accelerators, plan.precision, plan.backend) == ({"exact": {}}, precision, "best")
    save_plan(plan, tmp_path / "plan.yaml")
    assert load_plan(str(tmp_path / "plan.yaml")) == plan


@pytest.mark.parametrize(
    ("name", "sampler", "accelerators"),
    [
        ("exact-ddim-7", "ddim-7", {"exact": {}}),
        ("exact-dpmpp-8", "dpmpp-8", {"exact": {}}),
        ("uniform-10", "ddpm-100", {"exact": {}, "cache": {"scheduler": "uniform", "refreshes": 10}}),
        ("uniform-last-5", "ddpm-100", {"exact": {}, "cache": {"scheduler": "uniform-last", "refreshes": 5}}),
        ("bac-10", "ddpm-100", {"exact": {}, "cache": {"schedule": "bac-10"}}),
        ("global-4-ddim-20", "ddim-20", {"exact": {}, "cache": {"schedule": "global-4-ddim-20"}}),
    ],
)
def test_names_of_accelerated_plans_say_sampler_and_accelerators(tmp_path, name, sampler, accelerators):
    plan, plain = load_plan(name), load_plan(sampler)
    assert (plan.grid, plan.solver, plan.eta) == (plain.grid, plain.solver, plain.eta)
    assert (plan.name, plan.accelerators, plan.backend) == (name, accelerators, "best")
    save_plan(plan, tmp_path / "plan.yaml")
    assert load_plan(str(tmp_path / "plan.yaml")) == plan


@pytest.mark.parametrize("name", ["bac", "bac-", "bac-10-ddim", "bac-10-exact", "exact-", "uniform-last", "last-3"])
def test_no_other_name_is_taken_for_one(name):
    assert named_plan(name) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1, 2]", "wanted a mapping"),
        ("{name: x}", "needs name, grid and solver"),
        ("{name: x, grid: {steps: 3}, solver: dimm}", "unknown solver 'dimm'"),
        ("{name: x, grid: {stepz: 3}, solver: ddim}", "unknown stepz"),
        ("{name: x, grid: {steps: three}, solver: ddim}", "steps is 'three'"),
        ("{name: x, grid: {steps: 0}, solver: ddim}", "at least 1 step"),
        ("{name: x, grid: {steps: 3}, solver: ddim, stagger: -1}", "stagger is -1"),
        ("{name: x, grid: {steps: 3}, solver: ddim, view: everything}", "unknown view"),
        ("{name: x, grid: {steps: 3}, solver: ddim, behind: -1}", "behind is -1"),
        ("{name: x, grid: {steps: 3}, solver: ddim, ahead: -2}", "ahead is -2"),
        ("{name: x, grid: {steps: 3}, solver: ddim, view: lookahead, behind: 2}", "use view all"),
        ("{name: x, grid: {steps: 3}, solver: ddim, view: partitions, pieces: 3, ahead: 1}", "use view all"),
        ("{name: x, grid: 3, solver: ddim}", "grid is 3"),
        ("{name: x, grid: {steps: 3}, solver: ddim, eta: 2.0}", "eta is 2.0"),
        ("{name: x, grid: {steps: 3}, solver: ddim, eta: .nan}", "eta is nan"),
        ("{name: x, grid: {steps: 3}, solver: ddim, accelerators: [exact]}", "accelerators is \\['exact'\\]"),
        ("{name: x, grid: {steps: 3}, solver: ddim, accelerators: exact}", "accelerators is 'exact'"),
        ("{name: x, grid: {steps: 3}, solver: ddim, accelerators: {exact: true}}", "a name and its settings.*True"),
        ("{name: x, grid: {steps: 3}, solver: ddim, accelerators: {exact: }}", "a name and its settings.*None"),
        ("{name: x, grid: {steps: 3}, solver: ddim, accelerators: {1: {}}}", "a name and its settings.*1: {}"),
        ("{name: x, grid: {steps: 3}, solver: ddim, precision: fp8}", "unknown precision 'fp8'; known: fp32, tf32"),
        ("{name: x, grid: {steps: 3}, solver: ddim, backend: cuda}", "unknown backend 'cuda'; known: eager, best"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_plan_files_are_refused_in_one_line(tmp_path, text, complaint):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        load_plan(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_names_and_missing_files_are_refused():
    assert named_plan("ddim") is None
    for name in ("ddim", "ddim-x", "dddim-10", "nowhere.yaml"):
        with pytest.raises(InputError):
            load_plan(name)
    with pytest.raises(InputError, match="1 to 100"):
        load_plan("ddim-101").grid.build(schedule("squaredcos_cap_v2", 100))


@pytest.mark.parametrize(
    ("grid", "idle"),
    [
        ({"steps": 5, "told": [3]}, "told"),
        ({"kind": "custom", "labels": [0, 5], "end": 2}, "end"),
        ({"kind": "flow", "steps": 4, "entry": 3}, "entry"),
    ],
)
def test_what_a_grid_would_not_read_is_refused(grid, idle):
    with pytest.raises(InputError, match=f"does not read {idle}"):
        Plan.from_dict({"name": "p", "grid": grid, "solver": "ddim"})


@pytest.mark.parametrize(
    "guess",
    [{"source": "nearest", "clip": True}, {"source": "previous", "warm": True}, {"source": "anchors", "cold": "x"}],
)
def test_what_a_guess_would_not_read_is_refused(guess):
    data = {"name": "p", "grid": {"steps": 2}, "solver": "ddim", "birth": "noised", "guess": guess}
    with pytest.raises(InputError, match="does not read"):
        Plan.from_dict(data)


@pytest.mark.parametrize("gamma", [-1.0, float("inf"), float("nan")])
def test_gamma_is_a_number_from_0(gamma):
    with pytest.raises(InputError, match="gamma"):
        Plan(name="p", grid=GridSpec(steps=2), solver="ddpm", gamma=gamma)
