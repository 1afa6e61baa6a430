import numpy as np
import torch

from ontick.diffusion import keyed_normal


def test_equal_keys_give_equal_noise_whatever_is_drawn_beside_them():
    seeds, births = np.arange(50), np.arange(50) % 3
    together = keyed_normal(seeds[:, None], births[:, None], np.arange(16)[None], 7, 5)
    assert together.shape == (50, 16, 5) and together.dtype == torch.float32
    for lane in (0, 17, 49):
        alone = keyed_normal(seeds[lane], births[lane], np.arange(16), 7, 5)
        assert torch.equal(together[lane], alone)
    assert torch.equal(together[:, 3:4], keyed_normal(seeds[:, None], births[:, None], [3], 7, 5))


def test_a_prefix_of_rows_has_the_same_noise():
    assert torch.equal(keyed_normal(1, 2, np.arange(16), 3, 4)[:9], keyed_normal(1, 2, np.arange(9), 3, 4))


def test_every_part_of_the_key_matters():
    base = keyed_normal(1, 2, 3, 4, 64)
    for other in [(2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5), (2, 1, 3, 4), (-1, 2, 3, 4)]:
        assert abs(torch.corrcoef(torch.stack([base, keyed_normal(*other, 64)]))[0, 1]) < 0.5


def test_it_is_standard_normal():
    z = keyed_normal(np.arange(500)[:, None], 0, np.arange(20)[None], 9, 20).double().flatten()
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03 and abs((z**4).mean() - 3) < 0.08
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert abs((z < torch.special.ndtri(torch.tensor(q).double())).double().mean() - q) < 0.003
