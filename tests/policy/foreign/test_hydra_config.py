"""Hydra's configuration without hydra: values, interpolations, and nothing that runs."""

import pytest

from ontick.errors import InputError
from ontick.policy.foreign.hydra_config import Settings
from ontick.policy.foreign.unpickling import Inert

TREE = {
    "horizon": 16,
    "obs_dim": 20,
    "action_dim": 2,
    "obs_as_cond": True,
    "null": None,
    "share": 0.5,
    "names": ["a", "${task.name}"],
    "task": {"name": "pusht", "obs_dim": "${obs_dim}", "deep": {"er": "${task}"}},
    "chain": "${task.obs_dim}",
    "loop": "${pool}",
    "pool": "${loop}",
    "lost": "${nowhere.at.all}",
    "text": "${task.name}_${horizon}",
    "now": "${now:%Y.%m.%d}",
    "env": "${oc.env:HOME}",
    "choice": "${eval:'${action_dim} if ${obs_as_cond} else ${obs_dim} + ${action_dim}'}",
    "other": "${eval:'${action_dim} if not ${obs_as_cond} else ${obs_dim} + ${action_dim}'}",
    "bare": "${eval: ${task.obs_dim}*${action_dim} if ${obs_as_cond} or False else None}",
    "none": "${eval:'${obs_dim} if not ${obs_as_cond} else None'}",
    "call": "${eval:'__import__(\"os\").getcwd()'}",
    "power": "${eval:'9**9**9'}",
    "attribute": "${eval:'(1).__class__'}",
    "listed": "${eval:'[1,2]'}",
}


@pytest.fixture(params=["plain", "omegaconf"])
def settings(request, omegaconf, tmp_path):
    return Settings(TREE if request.param == "plain" else omegaconf(TREE, tmp_path / "cfg.pt"))


def test_values_are_found_by_their_paths(settings):
    assert settings.get("horizon") == 16 and settings.get("share") == 0.5 and settings.get("obs_as_cond") is True
    assert settings.get("task.name") == "pusht"
    assert settings.get("names") == ["a", "pusht"]
    assert settings.get("task")["obs_dim"] == 20


def test_interpolations_are_looked_up(settings):
    assert settings.get("chain") == 20
    assert settings.get("task.deep.er.name") == "pusht"


def test_the_published_arithmetic_is_done(settings):
    assert settings.get("choice") == 2
    assert settings.get("other") == 22
    assert settings.get("bare") == 40


@pytest.mark.parametrize(
    "path",
    ["nowhere", "task.nowhere", "horizon.deeper", "null", "none", "loop", "lost", "text", "now", "env", "call", "power",
     "attribute", "listed"],
)  # fmt: skip
def test_what_is_absent_or_cannot_be_resolved_has_the_default(settings, path):
    assert settings.get(path, "default") == "default"


def test_a_configuration_without_end_is_refused():
    loop = Inert("omegaconf.dictconfig.DictConfig")
    loop.state = {"_content": {"again": loop}}
    wide: list = [1]
    for _ in range(30):
        wide = [wide, wide]
    for cfg in (loop, {"wide": wide}):
        with pytest.raises(InputError, match="without end"):
            Settings(cfg)


def test_what_is_no_configuration_is_refused():
    for cfg in ([1], "text", Inert("omegaconf.dictconfig.DictConfig")):
        with pytest.raises(InputError, match="wanted a mapping"):
            Settings(cfg)


def chain(made, last=1):
    """{x0: made(x1), x1: made(x2), ...}"""
    return {f"x{i}": made(f"${{x{i + 1}}}") for i in range(19)} | {"x19": last}


FANS = {
    "lists": chain(lambda next: [next] * 10),
    "mappings": chain(lambda next: {str(i): next for i in range(10)}),
    "expressions": chain(lambda next: "${eval:" + "+".join([next] * 50) + "}"),
    "itself": {"x0": {"a": "${x0}", "b": "${x0}", "c": "${x0}"}},
}


@pytest.mark.parametrize("tree", FANS.values(), ids=FANS)
def test_interpolations_that_fan_out_without_end_are_refused(tree):
    settings = Settings(tree)
    with pytest.raises(InputError, match="without end"):
        settings.get("x0")


def test_an_expression_that_grows_too_long_has_no_value_but_what_is_no_number_may_stand_beside():
    tree = {"big": 10**15, "name": "x" * 10**6, "flag": True, "huge": 10**5000}
    tree |= {"sum": "${eval:" + "+".join(["${big}"] * 30) + "}", "chosen": "${eval: ${big} if ${flag} else ${name}}"}
    settings = Settings({**tree, "other": "${eval: ${big} if not ${flag} else ${name}}", "digits": "${eval:${huge}+1}"})
    assert settings.get("chosen") == 10**15
    assert [settings.get(name, "default") for name in ("sum", "other", "digits")] == ["default"] * 3
