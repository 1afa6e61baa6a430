import json
import pickle

import numpy as np
import pytest
import yaml

from ontick.commands.robot_terms import RobotTerms, terms_of
from ontick.errors import InputError
from ontick.runtime.robots.finding import make_robot

LIMITS = {"low": [-3, -2], "high": [3, 2], "speed": [1, 1], "acceleration": [4, 4], "jerk": [40, 40]}
POLICY = {
    "period_ms": 50,
    "observation_dim": 4,
    "actions": {"kind": "delta", "scale": [0.05, 0.05], "low": [-1, -1], "high": [1, 1]},
}
ROBOT = {"kind": "rosbridge", "url": "ws://arm:9090", "joints": ["a", "b"], "period_s": 0.02, "limits": LIMITS}
MJCF = """<mujoco><compiler angle="radian"/><worldbody>
<body><joint name="a" axis="0 0 1" range="-1 1"/><geom size="0.1"/>
<body pos="1 0 0"><joint name="b" axis="0 0 1" range="-5 1.5"/><geom size="0.1"/><site name="tool" pos="1 0 0"/></body>
</body></worldbody></mujoco>"""
MODEL = {"file": "arm.xml", "site": "tool", "workspace": {"low": [0, -3, -1], "high": [3, 3, 1]}}


def written(tmp_path, policy=None, **more) -> str:
    (tmp_path / "arm.xml").write_text(MJCF)
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump({**ROBOT, "policy": {**POLICY, **(policy or {})}, **more}))
    return str(path)


def test_what_is_not_said_is_as_usual(tmp_path):
    terms = terms_of(written(tmp_path))
    assert (terms.name, terms.period_s, terms.observation_age_s, terms.answer_s) == ("arm", 0.05, 0.2, 0.3)
    assert terms.target is terms.observation is terms.model is terms.workspace() is None


def test_the_simulated_robots_policy_is_shown_its_own_target():
    assert terms_of("sim").target == (2, 4)


def test_all_of_it_survives_as_json(tmp_path):
    said = {
        "observation_age_ms": 90.5,
        "answer_ms": 250,
        "target": [2, 4],
        "observation": {"observation/state": [0, 4], "prompt": "pick up the cup"},
    }
    terms = terms_of(written(tmp_path, said, model=MODEL))
    assert (terms.observation_age_s, terms.answer_s, terms.target) == (0.0905, 0.25, (2, 4))
    assert terms.observation == said["observation"]
    data = json.loads(json.dumps(terms.to_dict()))
    assert RobotTerms.from_dict(data, "bundle").to_dict() == data == terms.to_dict()


def test_times_come_back_as_they_were_written(tmp_path):
    data = terms_of(written(tmp_path)).to_dict()
    for written_ms in np.random.default_rng(0).uniform(1, 1000, 200).round(3).tolist():
        said = {**data, "period_ms": written_ms, "answer_ms": written_ms}
        assert RobotTerms.from_dict(said, "bundle").to_dict() == said


def test_the_same_robot_described_on_another_host_does_not_differ(tmp_path):
    terms = terms_of(written(tmp_path, model=MODEL))
    told = terms.to_dict()
    elsewhere = {**told, "model": {**told["model"], "file": "/home/robot/arm.xml"}}
    assert terms.differs(told) == terms.differs(elsewhere) == []
    assert terms.differs({**told, "period_ms": 20, "target": [0, 2]}) == ["period_ms", "target"]
    assert terms.differs({**told, "model": None}) == ["model"] and terms.differs(None) == ["all"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"colour": "red"}, "unknown colour; known: actions, answer_ms"),
        ({"limits": LIMITS}, "unknown limits"),
        ({"period_ms": None}, "lacks period_ms"),
        ({"period_ms": "fast"}, "period_ms is 'fast'"),
        ({"period_ms": True}, "period_ms is True"),
        ({"answer_ms": 0}, "answer_ms is 0"),
        ({"observation_age_ms": float("nan")}, "observation_age_ms is nan"),
        ({"observation_dim": True}, "observation_dim is True"),
        ({"observation_dim": 4.0}, "observation_dim is 4.0"),
        ({"actions": {"kind": "delta", "scale": [1, 1]}}, "actions: lacks low, high"),
        ({"actions": {"kind": "delta", "scale": [1], "low": [-1, 1], "high": [1]}}, "actions: an action map wants"),
        ({"actions": "delta"}, "actions: wanted a mapping, got str"),
        ({"actions": {"kind": "absolute", "scale": [1], "low": [0], "high": [1]}}, "limits of 2 and actions of 1"),
        ({"target": [2, 5]}, r"target is \[2, 5\]"),
        ({"target": [1, 4]}, "2 among 4 numbers"),
        ({"target": [3, 1]}, "target"),
        ({"target": [0.0, 2.0]}, "target"),
        ({"target": 2}, "target is 2"),
        ({"observation": {}}, "wanted a server's names"),
        ({"observation": {3: [0, 4]}}, "wanted a server's names"),
        ({"observation": ["state"]}, "wanted a server's names"),
        ({"observation": {"state": [0, 5]}}, r"observation, state: got \[0, 5\]"),
        ({"observation": {"state": None}}, "observation, state: got None"),
    ],
)
def test_a_policy_part_that_says_something_else_is_refused_with_the_reason(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason) as refused:
        terms_of(written(tmp_path, change))
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"kind: [", b"- 1", b"2001-99-99", b"[" * 5000, b"kind: 3"])
def test_what_is_no_robot_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "arm.yaml"
    path.write_bytes(content)
    for read in (terms_of, make_robot):
        with pytest.raises(InputError) as refused:
            read(str(path))
        assert "\n" not in str(refused.value)


def test_a_file_without_a_policy_part_or_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no part `policy` with period_ms, observation_dim, actions"):
        terms_of(_without_policy(tmp_path))
    with pytest.raises(InputError, match="wanted sim or a YAML file"):
        terms_of(str(tmp_path / "nosuch.yaml"))


def _without_policy(tmp_path) -> str:
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(ROBOT))
    return str(path)


def test_a_model_tightens_the_limits_and_no_driver_minds_it(tmp_path):
    path = written(tmp_path, model=MODEL)
    limits = terms_of(path).limits
    assert limits is not None
    assert limits.low.tolist() == [-1, -2] and limits.high.tolist() == [1, 1.5] and limits.speed.tolist() == [1, 1]
    assert make_robot(path).limits.low.tolist() == [-3, -2]  # type: ignore[attr-defined]  # the driver's own


def test_the_workspace_of_a_model_can_be_given_to_another_process(tmp_path, monkeypatch):
    path = written(tmp_path, model=MODEL)
    monkeypatch.chdir("/")  # its file is found beside the robot's, from anywhere
    inside = terms_of(path).workspace()
    assert inside is not None
    inside = pickle.loads(pickle.dumps(inside))
    assert inside(np.zeros(2)) and not inside(np.array([np.pi, 0.0]))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"model": {**MODEL, "site": "hand"}}, "has no site hand; it has tool"),
        ({"model": {**MODEL, "file": "nosuch.xml"}}, "is no model of a robot"),
        ({"model": {**MODEL, "colour": "red"}}, "model: unknown colour"),
        ({"model": "arm.xml"}, "model: wanted a file"),
        ({"model": MODEL, "limits": None}, "lacks limits"),
        ({"model": MODEL, "limits": {**LIMITS, "low": [2, -2]}}, "limits and model: "),
    ],
)
def test_a_model_that_is_none_or_of_another_robot_is_refused_in_one_line(tmp_path, more, reason):
    with pytest.raises(InputError, match=reason) as refused:
        terms_of(written(tmp_path, **more))
    assert "\n" not in str(refused.value)


def test_a_model_with_another_number_of_joints_is_refused(tmp_path):
    actions = {"kind": "delta", "scale": [1], "low": [-1], "high": [1]}
    limits = {name: part[:1] for name, part in LIMITS.items()}
    with pytest.raises(InputError, match="has 2 joints, the robot's command 1 numbers"):
        terms_of(written(tmp_path, {"actions": actions}, model=MODEL, limits=limits))
