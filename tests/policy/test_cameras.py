"""Cameras: the encoder is the one the field uses, and a network with cameras is the network of what they tell.

Legend: B lanes, To observation steps, n images, S side of an image, K keypoints.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from ontick import accel
from ontick._torchvision import ensure_torchvision
from ontick.diffusion import load_plan
from ontick.errors import InputError
from ontick.policy import (
    Checkpoint,
    ConditionalUnet1D,
    DiffusionPolicy,
    StreamingTransformer,
    TrainingConfig,
    TransformerConfig,
    TransformerForDiffusion,
    UNetConfig,
    load_checkpoint,
    save_checkpoint,
    train,
)
from ontick.policy.camera_lessons import told
from ontick.policy.cameras import Cameras, ImageEncoder, ResNet18, SpatialSoftmax, moved

S, K = 40, 3
SEES = {"image_size": S, "camera_width": 16, "keypoints": K}
SHAPE = {"action_dim": 2, "horizon": 8, "n_action_steps": 4}
OF = {
    TransformerForDiffusion: (TransformerConfig, {"width": 16, "layers": 1, "heads": 2, "p_drop_attn": 0.0}),
    StreamingTransformer: (TransformerConfig, {"width": 16, "layers": 1, "heads": 2, "p_drop_attn": 0.0}),
    ConditionalUnet1D: (UNetConfig, {"down_dims": (8, 16), "groups": 4, "step_width": 16}),
}
FAMILIES = pytest.mark.parametrize("family", OF, ids=lambda family: family.__name__)


def config_of(family, cameras=("top", "side"), state_dim=4, **changes):
    kind, shape = OF[family]
    sees = {**SEES, "cameras": cameras} if cameras else {}
    return kind(observation_dim=state_dim + len(cameras) * 3 * S * S, **SHAPE, **shape, **(sees | changes))


def observations(config, lanes, steps=2, seed=1):
    return torch.randn(lanes, steps, config.observation_dim, generator=torch.Generator().manual_seed(seed))


# -- the encoder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def randomise(random_network):
    """The module, with every weight, bias and norm drawn."""
    return lambda module: random_network(None, 0, lambda _: module)


@pytest.fixture
def torchvision_resnet():
    ensure_torchvision()
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    return models.resnet18(weights=None, norm_layer=lambda channels: torch.nn.GroupNorm(channels // 16, channels))


def test_the_backbone_is_torchvisions_resnet18_with_group_norm_bit_for_bit(torchvision_resnet, randomise):
    ours = randomise(ResNet18(64))
    left = torchvision_resnet.load_state_dict(ours.state_dict(), strict=False)
    assert left.missing_keys == ["fc.weight", "fc.bias"] and not left.unexpected_keys
    theirs = torch.nn.Sequential(*list(torchvision_resnet.children())[:-2])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, wanted = ours(images), theirs(images)
    assert got.shape == (2, 512, 2, 2) and wanted.std() > 0.1
    assert torch.equal(got, wanted)


def test_a_narrower_backbone_has_the_same_parameters_with_fewer_channels():
    with torch.device("meta"):
        wide, narrow = (ResNet18(width).state_dict() for width in (64, 16))
    assert wide.keys() == narrow.keys()
    for name, weight in wide.items():
        channels = [n // 4 if n >= 64 else n for n in weight.shape[:2]]
        assert narrow[name].shape == (*channels, *weight.shape[2:])


def test_a_keypoint_is_where_its_feature_stands_out():
    pool = SpatialSoftmax(3, 3, side=5)
    with torch.no_grad():
        pool.nets.weight.copy_(torch.eye(3)[:, :, None, None])
        pool.nets.bias.normal_(generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(1, 3, 5, 5)
    maps[0, 0, 1, 4] = maps[0, 1, 4, 0] = 50.0  # the third map is flat
    wanted = torch.tensor([[[1.0, -0.5], [-1.0, 1.0], [0.0, 0.0]]])  # x to the right, y down
    torch.testing.assert_close(pool(maps), wanted, atol=1e-5, rtol=0)


def test_keypoints_are_mean_places_under_a_softmax(randomise):
    pool = randomise(SpatialSoftmax(6, K, side=3))
    maps = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    scores = torch.einsum("kc,nchw->nkhw", pool.nets.weight[:, :, 0, 0], maps) + pool.nets.bias[:, None, None]
    share = scores.exp() / scores.exp().sum((2, 3), keepdim=True)
    along = torch.tensor([-1.0, 0.0, 1.0])
    wanted = torch.stack([(share * along).sum((2, 3)), (share * along[:, None]).sum((2, 3))], -1)
    torch.testing.assert_close(pool(maps), wanted, atol=1e-5, rtol=1e-5)


def test_features_are_the_state_and_then_each_cameras_own_step_by_step(randomise):
    config = config_of(TransformerForDiffusion)
    eyes = randomise(Cameras(config))
    obs = observations(config, lanes=3)
    got = eyes(obs)
    assert got.shape == (3, 2, config.feature_dim) and config.feature_dim == 4 + 2 * 2 * K
    assert torch.equal(got[..., :4], obs[..., :4])
    images = obs[..., 4:].reshape(3, 2, 2, 3, S, S)
    for lane in range(3):
        for step in range(2):
            alone = [encoder(images[lane, step, i][None])[0] for i, encoder in enumerate(eyes.encoders)]
            torch.testing.assert_close(got[lane, step, 4:], torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert got[..., 4:].std() > 0.05


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("size", [33, 64, 65, 96])
def test_the_encoders_map_fits_any_size_of_image(size, fine):
    sees = {"cameras": ("eye",), "image_size": size, "camera_width": 16, "keypoints": K, "camera_fine": fine}
    config = TransformerConfig(action_dim=2, observation_dim=3 * size**2, **sees)
    assert len(ImageEncoder(config).pool.places) == (-(-size // (16 if fine else 32))) ** 2
    assert ImageEncoder(config)(torch.zeros(1, 3, size, size)).shape == (1, 2 * K)


def test_the_middle_of_an_image_is_all_that_is_looked_at(randomise):
    config = config_of(TransformerForDiffusion, cameras=("top",), camera_crop=35)
    eyes, obs = randomise(Cameras(config)), observations(config, 2)
    images = obs[..., 4:].reshape(4, 3, S, S)
    wanted = eyes.encoders[0](images[..., 2:37, 2:37])  # of 5 pixels left out, 2 come first, as in torchvision
    torch.testing.assert_close(eyes(obs)[..., 4:].flatten(0, 1), wanted)


def test_moves_and_the_middle_are_random_crops(randomise):
    config = config_of(TransformerForDiffusion, cameras=("top",), camera_crop=36, camera_shift=2)
    eyes, obs = randomise(Cameras(config)).train(), observations(config, 1, steps=1)
    image = obs[0, 0, 4:].reshape(3, S, S)
    torch.manual_seed(4)
    down, right = torch.randint(-2, 3, (1, 2))[0].tolist()
    torch.manual_seed(4)
    seen = eyes(obs)[0, 0, 4:]
    crop = image[:, 2 - down : 38 - down, 2 - right : 38 - right]
    torch.testing.assert_close(seen, eyes.encoders[0](crop[None])[0])


# -- networks with cameras --------------------------------------------------------------------------------------------


@FAMILIES
def test_a_network_with_cameras_is_the_network_of_what_they_tell(family, random_network):
    config = config_of(family)
    seeing = random_network(config, 0, family)
    bare = family(config_of(family, cameras=(), state_dim=config.feature_dim)).eval().requires_grad_(False)
    own = {name: w for name, w in seeing.state_dict().items() if not name.startswith("cameras.")}
    bare.load_state_dict(own, strict=True)
    obs = observations(config, lanes=2)
    x = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(2))
    out = seeing(x, 7, obs)
    assert torch.equal(out, bare(x, 7, seeing.cameras(obs)))
    changed = obs.clone()
    changed[:, -1, 4:] *= -1
    assert not torch.equal(out, seeing(x, 7, changed))


@FAMILIES
def test_without_cameras_nothing_is_added(family):
    config = config_of(family, cameras=(), state_dim=3)
    assert config.state_dim == config.feature_dim == config.observation_dim == 3
    assert not {"cameras", "image_size", "camera_width", "keypoints", "camera_shift"} & config.to_dict().keys()
    assert not [name for name in family(config).state_dict() if name.startswith("cameras")]


@FAMILIES
def test_the_loss_trains_every_encoder(family):
    torch.manual_seed(0)
    config = config_of(family)
    network = family(config)
    m = network.lookback
    actions = torch.randn(4, m + 8, 2).clamp(-1, 1)
    network.loss(observations(config, 4, m + 2), actions, torch.Generator().manual_seed(0)).backward()
    gradients = [parameter.grad for parameter in network.cameras.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(bool(g.abs().max() > 0) for g in gradients) > 0.9 * len(gradients)


def test_a_lane_is_bit_equal_whatever_its_neighbours_show(random_network):
    config = config_of(TransformerForDiffusion)
    network = random_network(config)
    one, other = observations(config, 3), observations(config, 3, seed=9)
    other[1] = one[1]
    assert torch.equal(network.prepare(one)[1], network.prepare(other)[1])


@FAMILIES
def test_a_checkpoint_with_cameras_comes_back_and_serves_chunks(family, random_checkpoint, tmp_path):
    checkpoint = random_checkpoint(config_of(family), family=family)
    save_checkpoint(tmp_path / "eyes", checkpoint, half=False)
    found = load_checkpoint(tmp_path / "eyes")
    assert found.network.config == checkpoint.network.config
    if family is StreamingTransformer:
        return  # its plans have queues
    obs = observations(checkpoint.network.config, 2).numpy()
    chunks = []
    for each in (checkpoint, Checkpoint(found.network, found.normaliser)):
        policy = DiffusionPolicy(each, load_plan("ddim-4"), width=2)
        policy.reset([0, 1], [5, 6])
        chunks.append(policy.predict_action_chunk(obs, [0, 1]))
    assert chunks[0].shape == (2, 4, 2) and (chunks[0] == chunks[1]).all()


def test_the_exact_rewrite_sees_as_the_plain_network_does(random_checkpoint):
    checkpoint = random_checkpoint(config_of(TransformerForDiffusion))
    obs = observations(checkpoint.network.config, 2).numpy()
    plans = load_plan("ddim-10"), dataclasses.replace(load_plan("exact-ddim-10"), backend="eager")
    chunks = []
    for plan in plans:
        policy = DiffusionPolicy(checkpoint, plan, 2, accel.build)
        policy.reset([0, 1], [5, 6])
        chunks.append(policy.predict_action_chunk(obs, [0, 1]))
    np.testing.assert_allclose(chunks[1], chunks[0], atol=1e-3)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spots():
    """A bright spot on a dark picture, whose place is what the action says: observations, actions, ends."""
    rng = np.random.default_rng(0)
    places = rng.uniform(6, S - 6, (40, 2))
    rows, columns = np.mgrid[:S, :S]
    pictures = np.exp(-((rows - places[:, :1, None]) ** 2 + (columns - places[:, 1:, None]) ** 2) / 18)
    pixels = np.repeat(pictures[:, None], 3, 1).reshape(40, -1)
    state = rng.uniform(-1, 1, (40, 1))
    repeated = np.repeat(np.arange(40), 4)  # an episode stands still for four frames
    return (
        np.concatenate([state, pixels], 1).astype(np.float32)[repeated],
        places.astype(np.float32)[repeated],
        np.arange(4, 161, 4),
    )


def seeing_config(**changes):
    return config_of(TransformerForDiffusion, cameras=("top",), state_dim=1, n_obs_steps=1, **changes)


def test_pixels_have_limits_of_their_own_in_training_and_a_still_one_is_not_lost(spots):
    observed, actions, ends = (spots[0].copy(), *spots[1:])
    observed[:, 1] = 0.25  # a pixel that never changes
    trained = train(observed, actions, ends, seeing_config(), TrainingConfig(steps=1, batch=2))
    seen = trained.normaliser.normalise("obs", torch.from_numpy(observed))
    torch.testing.assert_close(seen[:, 1:], 2 * torch.from_numpy(observed[:, 1:]) - 1)
    assert seen[:, 0].min() == pytest.approx(-1, abs=1e-4) and seen[:, 0].max() == pytest.approx(1, abs=1e-4)


def test_a_run_with_moved_images_repeats_bit_for_bit(spots):
    config, settings = seeing_config(camera_shift=2), TrainingConfig(steps=2, batch=4, seed=3)
    runs = []
    for _ in range(2):
        torch.rand(7)  # what was drawn before does not matter
        runs.append(train(*spots, config, settings).network.state_dict())
    still = train(*spots, dataclasses.replace(config, camera_shift=0), settings).network.state_dict()
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())
    assert any(not torch.equal(value, still[name]) for name, value in runs[0].items())


def test_moved_images_are_shifted_and_repeat_their_edge():
    images = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    by = torch.tensor([[0, 0], [2, -1], [-1, 1]])
    got = moved(images, by)
    for lane, (down, right) in enumerate(by.tolist()):
        for row in range(5):
            for column in range(5):
                source = images[lane, :, min(max(row - down, 0), 4), min(max(column - right, 0), 4)]
                assert torch.equal(got[lane, :, row, column], source)


def test_images_are_moved_in_training_alone_and_all_of_a_sample_alike(randomise):
    config = config_of(TransformerForDiffusion, cameras=("top",), camera_shift=3)
    eyes = randomise(Cameras(config))
    obs = observations(config, 4)
    obs[:, 1] = obs[:, 0]  # both steps show the same
    still = copy.deepcopy(eyes).eval()(obs)
    assert torch.equal(still, copy.deepcopy(eyes).eval()(obs))
    torch.manual_seed(0)
    shaken = eyes.train()(obs)
    torch.testing.assert_close(shaken[:, 0], shaken[:, 1], atol=1e-5, rtol=1e-5)
    assert (shaken - still).abs().max() > 1e-3
    assert torch.equal(shaken[..., :4], obs[..., :4])


def test_lessons_teach_the_encoder_to_tell_the_picture_and_training_leaves_it_so(spots):
    config, losses = seeing_config(camera_lessons=150, keypoints=8), {}
    settings = TrainingConfig(steps=1, batch=16, lr=2e-3, warmup=10)
    taught = train(*spots, config, settings, progress=losses.__setitem__).network
    assert list(losses) == list(range(-150, 1))
    assert losses[-150] == pytest.approx(1, abs=0.3)  # the mean picture is what is told at first
    assert np.mean([losses[step] for step in range(-10, 0)]) < 0.6
    assert taught.state_dict().keys() == TransformerForDiffusion(config).state_dict().keys()


def test_training_after_lessons_leaves_the_cameras_as_they_are_and_trains_the_rest(spots):
    config, settings = seeing_config(camera_lessons=2), TrainingConfig(steps=1, batch=4, warmup=0)
    short, long = (train(*spots, config, dataclasses.replace(settings, steps=n)).network for n in (1, 3))
    for (name, one), other in zip(short.named_parameters(), long.parameters(), strict=True):
        assert torch.equal(one, other) == name.startswith(("cameras.", "_dummy")), name


@FAMILIES
def test_what_was_told_before_is_not_looked_at_again(family, random_network):
    config = config_of(family)
    seeing, obs = random_network(config, 0, family), observations(config_of(family), 2)
    features = told(seeing.cameras, obs.flatten(0, 1)).view(2, 2, -1)
    torch.testing.assert_close(features, seeing.cameras(obs), atol=1e-5, rtol=1e-5)
    assert seeing.cameras(features) is features


def test_a_run_begun_from_one_that_sees_keeps_its_cameras(spots):
    config, settings = seeing_config(camera_lessons=2), TrainingConfig(steps=1, batch=4, warmup=0)
    first = train(*spots, config, settings)
    again = train(*spots, config, settings, begin_from=first).network.cameras.state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in first.network.cameras.state_dict().items())


def test_pictures_that_never_change_teach_nothing(spots):
    still = spots[0].copy()
    still[:, 1:] = 0.5
    with pytest.raises(InputError, match="the pictures never change: leave it out"):
        train(still, *spots[1:], seeing_config(camera_lessons=2), TrainingConfig(steps=1, batch=4))


@pytest.mark.parametrize("kill", [-2, 0, 1, 3])
def test_a_run_with_lessons_killed_anywhere_ends_as_an_uninterrupted_one_bit_for_bit(kill, spots, tmp_path):
    config, settings = seeing_config(camera_lessons=3), TrainingConfig(steps=4, batch=4, warmup=2, save_every=2)
    wanted = train(*spots, config, settings).network.state_dict()

    def killed(step, loss):
        if step == kill:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*spots, config, settings, state_file=tmp_path / "state", progress=killed)
    steps = []
    got = train(*spots, config, settings, state_file=tmp_path / "state", progress=lambda step, _: steps.append(step))
    assert steps[0] == {-2: -3, 0: 0, 1: 0, 3: 2}[kill]
    assert all(torch.equal(value, wanted[name]) for name, value in got.network.state_dict().items())


@pytest.mark.slow
def test_keypoints_learn_where_a_spot_is_though_the_encoders_map_is_two_by_two(spots):
    torch.manual_seed(0)
    encoder = ImageEncoder(seeing_config())
    head = torch.nn.Linear(2 * K, 2)
    optim = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    images = 2 * torch.from_numpy(spots[0][::4, 1:]).reshape(-1, 3, S, S) - 1
    places = torch.from_numpy(spots[1][::4])
    places = (places - places.mean(0)) / places.std(0)
    losses = []
    for _ in range(250):
        picks = torch.randint(len(places), (16,))
        error = (head(encoder(images[picks])) - places[picks]).square().mean()
        optim.zero_grad()
        error.backward()
        optim.step()
        losses.append(error.item())
    assert np.mean(losses[-10:]) < 0.3  # the mean place alone would be 1 off


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"observation_dim": 3 * S * S - 1}, "less than the cameras' 1 x 3 x 40 x 40"),
        ({"cameras": ("top", "top")}, "wanted names that differ"),
        ({"cameras": ("",)}, "wanted names that differ"),
        ({"image_size": 32}, "above 32"),
        ({"camera_width": 24}, "multiple of 16"),
        ({"keypoints": 0}, "whole number from 1"),
        ({"camera_shift": -1}, "whole number from 0"),
        ({"camera_lessons": -1}, "whole number from 0"),
        ({"keypoints": 2400}, "more numbers than an image has"),
        ({"cameras": ()}, "image_size is 40, but no cameras are named"),
        ({"camera_crop": 32}, "camera_crop is 32, wanted above 32"),
        ({"camera_crop": 41}, "at most the image_size 40"),
    ],
)
def test_cameras_that_cannot_be_are_refused(change, told):
    with pytest.raises(InputError, match=told):
        TransformerConfig(**{"action_dim": 2, "observation_dim": 3 * S * S, **SEES, "cameras": ("top",), **change})
