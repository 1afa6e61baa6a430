"""A LeRobot checkpoint, converted, beside LeRobot itself: one forward pass, one sampled chunk, both normalisers.

    PYTHON-WITH-LEROBOT benchmarks/parity_lerobot.py theirs runs/parity-lerobot [--images]
    python benchmarks/parity_lerobot.py ours runs/parity-lerobot --json benchmarks/results/parity-lerobot.json

The first writes a checkpoint by LeRobot's own save_pretrained, of an untrained network whose biases and norms are
random, and what LeRobot makes of it; it needs an environment of its own. The second converts it and compares. With
--images the policy sees a camera in the place of the environment's state, as `lerobot/diffusion_pusht` does.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LANES, HORIZON, EXECUTED, OBSERVED = 4, 16, 8, 2
STATE, ENVIRONMENT, ACTION = 2, 16, 2
IMAGE, CROP = 96, 84
STEPS = 10  # of DDIM
CHECKPOINT, ANSWERS = "pretrained_model", "answers.safetensors"


def theirs(folder: Path, images: bool) -> None:
    import diffusers
    import lerobot
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

    torch.manual_seed(0)
    camera, environment = "observation.image", "observation.environment_state"
    widths = {
        "observation.state": (STATE,),
        environment: (ENVIRONMENT,),
        camera: (3, IMAGE, IMAGE),
        "action": (ACTION,),
    }
    kinds = {"observation.state": FeatureType.STATE}
    kinds |= {camera: FeatureType.VISUAL} if images else {environment: FeatureType.ENV}
    config = DiffusionConfig(
        input_features={name: PolicyFeature(kind, widths[name]) for name, kind in kinds.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        n_obs_steps=OBSERVED,
        horizon=HORIZON,
        n_action_steps=EXECUTED,
        down_dims=(128, 256, 512),
        crop_shape=(CROP, CROP) if images else None,
        noise_scheduler_type="DDIM",
        num_inference_steps=STEPS,
        device="cpu",
    )
    policy = DiffusionPolicy(config).eval()
    for value in policy.parameters():
        if value.dim() == 1:
            value.data.add_(0.3 * torch.randn(value.shape))
    low = {name: torch.randn(width) for name, width in widths.items()}
    low[camera] = torch.rand(3, 1, 1)
    statistics = {
        name: {
            "min": value,
            "max": value + 1 + torch.rand(value.shape),
            "mean": value + 0.5,
            "std": 0.5 + torch.rand(value.shape),
        }
        for name, value in low.items()
    }
    before, after = make_diffusion_pre_post_processors(config, statistics)
    for part in (policy, before, after):
        part.save_pretrained(folder / CHECKPOINT)

    x = torch.randn(LANES, HORIZON, ACTION)
    seen = {name: low[name] + 2 * torch.rand(LANES, OBSERVED, *widths[name]) for name in kinds}
    with torch.no_grad():
        told = before(dict(seen))
        told = {name: told[name] for name in kinds}
        pictures = {"observation.images": told[camera][:, :, None]} if images else {}
        known = policy.diffusion._prepare_global_conditioning({**told, **pictures})
        t = torch.tensor([0, 7, 50, 99])
        forward = policy.diffusion.unet(x, t, global_cond=known)
        noise = torch.randn(LANES, HORIZON, ACTION)
        chunk = _sampled(policy, known, noise)
        actions = after(chunk)
    answers = {"x": x, "t": t.float(), "forward": forward, "noise": noise, "chunk": chunk, "actions": actions}
    answers["observations"] = torch.cat([seen[name].flatten(2) for name in kinds], -1)
    answers["normalised"] = torch.cat([told[name].flatten(2) for name in kinds], -1)
    versions = {"lerobot": lerobot.__version__, "diffusers": diffusers.__version__, "torch": torch.__version__}
    save_file({name: value.contiguous() for name, value in answers.items()}, folder / ANSWERS, versions)
    print(f"{folder}: {sum(v.numel() for v in policy.parameters()) / 1e6:.1f} M parameters, {versions}")


def _sampled(policy, known, noise):
    """LeRobot's own loop, from a given noise (older versions draw it themselves)."""
    scheduler, x = policy.diffusion.noise_scheduler, noise
    scheduler.set_timesteps(policy.diffusion.num_inference_steps)
    for t in scheduler.timesteps:
        out = policy.diffusion.unet(x, torch.full((len(x),), int(t)), global_cond=known)
        x = scheduler.step(out, t, x).prev_sample
    return x


def ours(folder: Path, output: Path | None) -> None:
    from safetensors import safe_open

    from ontick.diffusion import Eager, begin, build, load_plan
    from ontick.policy.foreign import from_lerobot

    checkpoint, found = from_lerobot(folder / CHECKPOINT), load_file(folder / ANSWERS)
    network, normaliser = checkpoint.network, checkpoint.normaliser
    with safe_open(folder / ANSWERS, "pt") as file:
        versions = file.metadata()
    program = build(network, load_plan(f"ddim-{STEPS}"), (ACTION,), HORIZON)
    with torch.no_grad():
        observations = normaliser.normalise("obs", found["observations"])
        forward = network.forward(found["x"], found["t"], observations)
        start = begin(program, program.prepare(observations), torch.arange(LANES), torch.zeros(LANES, dtype=torch.long))
        chunk = Eager().chunk(program, start._replace(x=found["noise"])).x
        actions = normaliser.unnormalise("action", chunk)
    compared = {"normalised": observations, "forward": forward, "chunk": chunk, "actions": actions}
    result = {name: float((value - found[name]).abs().max()) for name, value in compared.items()}
    scale = {name: float(found[name].abs().max()) for name in compared}
    for name, difference in result.items():
        print(f"{name:<11} largest difference {difference:.2e}, of values up to {scale[name]:.2f}")
    if output is not None:
        told = {"largest_difference": result, "largest_value": scale, "lanes": LANES, "ddim_steps": STEPS}
        output.write_text(json.dumps({**told, "versions": versions}, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=("theirs", "ours"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", action="store_true", help="a camera in the place of the environment's state")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.who == "theirs":
        theirs(options.folder, options.images)
    else:
        ours(options.folder, options.json)
