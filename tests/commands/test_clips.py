"""`ontick clips`: every scene is made, said, kept, and not made twice."""

import numpy as np
import pytest

from ontick.commands import main
from ontick.data.scenes import SCENES, Recipe, make_clips
from ontick.envs import rendering
from ontick.video.clips import read_clips

AVAILABLE, REASON = rendering.render_available()
needs_renderer = pytest.mark.skipif(not AVAILABLE, reason=REASON)


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr("ontick.data.kolmogorov.WARM_UP", 0.1)


@pytest.fixture
def go(tmp_path, capsys):
    """go(scene, "--option", ...) -> exit code, what was printed, the clips' path."""

    def run(scene, *options, episodes=2, frames=3, out="clips.zarr"):
        path = tmp_path / out
        numbers = ["--episodes", str(episodes), "--frames", str(frames)]
        code = main(["clips", scene, *numbers, "--out", str(path), *options])
        said = capsys.readouterr()
        return code, said.out + said.err, path

    return run


@pytest.mark.parametrize(
    ("scene", "shape", "kind", "actions"),
    [
        pytest.param("arm-and-ball", (6, 64, 64, 3), "rgb", 2, marks=needs_renderer),
        ("kolmogorov", (6, 32, 32, 1), "field", 0),
        ("sprites", (6, 32, 32, 3), "rgb", 0),
    ],
)
def test_each_scene_is_made_and_told(go, scene, shape, kind, actions):
    code, said, path = go(scene, "--seed", "4")
    found = read_clips(path)
    assert code == 0 and "2 episodes" in said and str(path) in said and "s an episode" in said
    assert found.frames.shape == shape and found.actions.shape == (6, actions) and found.ends.tolist() == [3, 6]
    noted = {"kind": kind, "scene": scene, "fps": 10, "seed": 4, "size": shape[1]}
    assert noted.items() <= found.attributes.items()
    if kind == "field":
        assert found.attributes["scale"] == pytest.approx(found.frames.std(), rel=1e-5)


def test_the_same_recipe_is_not_made_twice_and_another_is_refused(go):
    go("sprites")
    code, said, _ = go("sprites")
    assert code == 0 and "nothing to do" in said
    assert go("sprites", "--size", "32")[0] == 0  # the default, named
    code, said, path = go("sprites", "--seed", "1")
    assert code == 2 and "seed 0, not 1" in said
    assert read_clips(path).attributes["seed"] == 0


def test_a_size_can_be_asked_for(go):
    assert read_clips(go("sprites", "--size", "48")[2]).frames.shape == (6, 48, 48, 3)


def test_two_base_seeds_share_no_episode_and_one_makes_the_same_again():
    one, again, other = (make_clips(Recipe("sprites", 3, 4, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.frames, again.frames)
    assert not set(Recipe("sprites", 300, 4, 0).seeds) & set(Recipe("sprites", 60, 4, 1).seeds)
    for first in range(3):
        assert all((one.frames[one.episode(first)] != other.frames[other.episode(i)]).any() for i in range(3))


@pytest.mark.parametrize(
    ("scene", "options", "said"),
    [
        ("galaxies", {}, "wanted one of arm-and-ball"),
        ("sprites", {"episodes": 0}, "got 0 episodes"),
        ("sprites", {"frames": 1}, "got 1 frames"),
        ("sprites", {"out": "clips.h5"}, r".zarr"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(go, scene, options, said):
    code, told, path = go(scene, **options)
    assert code == 2 and said in told and told.count("\n") == 1 and not path.exists()


def test_an_odd_size_of_a_flow_is_refused_before_the_work(go):
    code, told, path = go("kolmogorov", "--size", "31")
    assert code == 2 and "even number" in told and not path.exists()


def test_every_scene_has_a_size_of_its_own():
    assert all(Recipe(scene, 1, 2).pixels > 0 for scene in SCENES)
