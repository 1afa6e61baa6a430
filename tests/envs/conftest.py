"""One thread for torch: these tests share their machine, and none of them is large."""

import pytest

from ontick.envs.collection import Recipe, collect
from ontick.envs.dataset import write_demonstrations

RECIPE = Recipe("metaworld/reach-v3", episodes=4, seed=3, noise=0.1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    """Four episodes of the easiest task."""
    return collect(RECIPE, tmp_path_factory.mktemp("collected") / "partial")


@pytest.fixture(scope="session")
def saved(demonstrations, tmp_path_factory):
    """The same, in both formats: {"zarr": path, "hdf5": path}."""
    folder = tmp_path_factory.mktemp("saved")
    paths = {ending: folder / f"reach.{ending}" for ending in ("zarr", "hdf5")}
    for path in paths.values():
        write_demonstrations(path, demonstrations)
    return paths
