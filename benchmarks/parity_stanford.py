"""A Diffusion Policy checkpoint, converted, beside Diffusion Policy itself: one forward pass and one sampled chunk.

    OTHER-PYTHON benchmarks/parity_stanford.py theirs runs/parity-stanford --repository DIFFUSION_POLICY
    python benchmarks/parity_stanford.py ours runs/parity-stanford --json benchmarks/results/parity-stanford.json

The first, which needs omegaconf and dill, makes both low-dimensional policies by the library's own classes and
configurations, untrained, with random biases, norms and normalisers, and saves each as its workspace does: once with
the configuration resolved, as its train.py has it, once with every interpolation left. The second converts the files
and compares.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LANES, OBSERVATION, ACTION = 4, 20, 2
STEPS = 10  # of DDIM
TASK = {"name": "pusht_lowdim", "obs_dim": OBSERVATION, "action_dim": ACTION, "keypoint_dim": 2}
POLICIES = {"transformer": {"horizon": 16, "n_obs_steps": 2, "n_action_steps": 8}, "unet": {}}


def theirs(folder: Path, repository: Path) -> None:
    sys.path.insert(0, str(repository))
    import diffusers
    import dill
    import omegaconf
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("eval", eval)  # as the library's train.py does
    OmegaConf.register_new_resolver("now", lambda pattern: "2026")
    torch.manual_seed(0)
    for name, changes in POLICIES.items():
        file = repository / "diffusion_policy/config" / f"train_diffusion_{name}_lowdim_workspace.yaml"
        cfg = OmegaConf.load(file)
        for unused in ("defaults", "hydra"):
            del cfg[unused]
        cfg.merge_with({"task": TASK, **changes})
        as_written, cfg = cfg.copy(), cfg
        OmegaConf.resolve(cfg)
        policy = _policy(name, OmegaConf.to_container(cfg.policy))
        trained = {key: value + 1 for key, value in policy.state_dict().items()}
        states = {"model": trained, "ema_model": policy.state_dict()}
        for ending, written in {"resolved": cfg, "as-written": as_written}.items():
            payload = {"cfg": written, "state_dicts": states, "pickles": {"epoch": dill.dumps(7)}}
            torch.save(payload, (folder / f"{name}-{ending}.ckpt").open("wb"), pickle_module=dill)
        versions = {"diffusers": diffusers.__version__, "omegaconf": omegaconf.__version__, "dill": dill.__version__}
        answers = {key: value.contiguous() for key, value in _answers(policy).items()}
        save_file(answers, folder / f"{name}.safetensors", {**versions, "torch": torch.__version__})
        print(f"{name}: {sum(value.numel() for value in policy.model.parameters()) / 1e6:.1f} M parameters, {versions}")


def _policy(name: str, settings: dict):
    """The library's policy, with DDIM, which draws no noise on its way, in the place of DDPM."""
    from diffusers import DDIMScheduler

    kinds = {"transformer": ("transformer_for_diffusion", "TransformerForDiffusion")}
    kinds["unet"] = ("conditional_unet1d", "ConditionalUnet1D")
    classes = {"transformer": "DiffusionTransformerLowdimPolicy", "unet": "DiffusionUnetLowdimPolicy"}
    module, kind = kinds[name]
    network = getattr(__import__(f"diffusion_policy.model.diffusion.{module}", fromlist=[kind]), kind)
    policy = __import__(f"diffusion_policy.policy.diffusion_{name}_lowdim_policy", fromlist=[classes[name]])
    from diffusion_policy.model.common.normalizer import LinearNormalizer

    scheduler = {k: v for k, v in settings.pop("noise_scheduler").items() if k not in ("_target_", "variance_type")}
    model = {key: value for key, value in settings.pop("model").items() if key != "_target_"}
    rest = {key: value for key, value in settings.items() if key != "_target_"} | {"num_inference_steps": STEPS}
    made = getattr(policy, classes[name])(network(**model), DDIMScheduler(**scheduler), **rest)
    for value in made.model.parameters():
        value.data.add_(torch.randn(value.shape) * (0.3 if value.dim() == 1 else 0.02))
    normaliser = LinearNormalizer()
    normaliser.fit({"obs": 3 * torch.randn(200, OBSERVATION) + 1, "action": 50 * torch.rand(200, ACTION)})
    made.set_normalizer(normaliser)
    return made.eval()


@torch.no_grad()
def _answers(policy) -> dict[str, torch.Tensor]:
    horizon, steps = policy.horizon, policy.n_obs_steps
    x, t = torch.randn(LANES, horizon, ACTION), torch.tensor([0, 7, 50, 99])
    observations = 3 * torch.randn(LANES, steps, OBSERVATION) + 1
    told = policy.normalizer["obs"].normalize(observations)
    known = {"cond": told} if hasattr(policy, "obs_as_cond") else {"global_cond": told.flatten(1)}
    forward = policy.model(x, t, **known)
    shape = torch.zeros(LANES, horizon, ACTION)
    chunk = policy.conditional_sample(
        shape, torch.zeros_like(shape, dtype=torch.bool), **known, generator=torch.Generator().manual_seed(5)
    )
    noise = torch.randn(shape.shape, generator=torch.Generator().manual_seed(5))  # what the sampling began with
    actions = policy.normalizer["action"].unnormalize(chunk)
    answers = {"x": x, "t": t.float(), "observations": observations, "normalised": told, "noise": noise}
    return {**answers, "forward": forward, "chunk": chunk, "actions": actions}


def ours(folder: Path, output: Path | None) -> None:
    from safetensors import safe_open

    from ontick.diffusion import Eager, begin, build, load_plan
    from ontick.policy.foreign import from_stanford, open_torch_file

    results, versions = {}, {}
    for path in sorted(folder.glob("*.ckpt")):
        name = path.stem.partition("-")[0]
        found = load_file(folder / f"{name}.safetensors")
        with safe_open(folder / f"{name}.safetensors", "pt") as file:
            versions = file.metadata()
        with open_torch_file(path) as contents:
            checkpoint = from_stanford(contents, path.name)
        network, normaliser = checkpoint.network, checkpoint.normaliser
        program = build(network, load_plan(f"ddim-{STEPS}"), (ACTION,), network.config.horizon)
        with torch.no_grad():
            told = normaliser.normalise("obs", found["observations"])
            forward = network.forward(found["x"], found["t"], told)
            start = begin(program, program.prepare(told), torch.arange(LANES), torch.zeros(LANES, dtype=torch.long))
            chunk = Eager().chunk(program, start._replace(x=found["noise"])).x
            actions = normaliser.unnormalise("action", chunk)
        compared = {"normalised": told, "forward": forward, "chunk": chunk, "actions": actions}
        results[path.stem] = {key: float((value - found[key]).abs().max()) for key, value in compared.items()}
        for key, difference in results[path.stem].items():
            most = float(found[key].abs().max())
            print(f"{path.stem:<22} {key:<11} largest difference {difference:.2e}, of values up to {most:.2f}")
    if output is not None:
        told = {"largest_difference": results, "lanes": LANES, "ddim_steps": STEPS, "versions": versions}
        output.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=("theirs", "ours"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", type=Path, help="a checkout of Diffusion Policy")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.who == "theirs":
        theirs(options.folder, options.repository)
    else:
        ours(options.folder, options.json)
