"""The training and timing core runs where only torch, numpy, einops and safetensors are installed."""

import subprocess
import sys
import textwrap

CORE = ("torch", "numpy", "einops", "safetensors")

# Run before the package is imported: whatever does not come with the core, or with what the core itself requires, is
# as good as not installed.
BLOCKER = f"""
import importlib.metadata as metadata, re, sys

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

provided = {{}}
for module, distributions in metadata.packages_distributions().items():
    for distribution in distributions:
        provided.setdefault(canonical(distribution), set()).add(module)

todo, core = [canonical(name) for name in {CORE!r}], set()
while todo:
    name = todo.pop()
    if name in core or name not in provided:
        continue
    core.add(name)
    needs = [need for need in metadata.requires(name) or [] if "extra ==" not in need]
    todo += [canonical(re.match(r"[\\w.-]+", need)[0]) for need in needs]

installed = set().union(*provided.values())
allowed = set().union(*(provided[name] for name in core)) | {{"ontick"}} | set(sys.stdlib_module_names)

class Blocker:
    # Asks Python's own finders, for what is allowed alone: the rest is not found, as if it were not installed.
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in installed - allowed:
            return None
        found = (f.find_spec(name, path, target) for f in self.finders if hasattr(f, "find_spec"))
        return next((spec for spec in found if spec is not None), None)

sys.meta_path[:] = [Blocker(list(sys.meta_path))]
"""


def run(code: str) -> subprocess.CompletedProcess:
    program = BLOCKER + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_the_blocker_blocks():
    heavy = ["gymnasium", "mujoco", "metaworld", "zarr", "h5py", "robomimic", "hdrh", "tqdm", "matplotlib"]
    heavy += ["diffusers", "imageio_ffmpeg", "pytest"]
    done = run(f"""
        for name in {heavy!r}:
            try:
                __import__(name)
            except ModuleNotFoundError:
                continue
            raise SystemExit(f"{{name}} was imported")
        import torch, numpy, einops, safetensors
    """)
    assert done.returncode == 0, done.stderr


def test_the_core_imports_trains_two_steps_and_times_a_chunk():
    done = run("""
        import numpy as np
        import torch
        import ontick.diffusion, ontick.policy
        from ontick.runtime import WallClock, describe_machine
        from ontick.diffusion import load_plan
        from ontick.policy import DiffusionPolicy, TrainingConfig, TransformerConfig, train

        torch.set_num_threads(1)
        rng = np.random.default_rng(0)
        shape = TransformerConfig(action_dim=2, observation_dim=3, width=16, layers=1, heads=2)
        data = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), np.array([40])
        trained = train(*data, shape, TrainingConfig(steps=2, batch=4))
        policy = DiffusionPolicy(trained, load_plan("ddim-2"))
        policy.reset([0], [1])
        clock = WallClock()
        start_s = clock.now()
        chunk = policy.predict_action_chunk(np.zeros((1, 2, 3)), [0])
        assert chunk.shape == (1, 8, 2) and np.isfinite(chunk).all()
        print(f"{clock.now() - start_s:.6f}")
    """)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_the_core_draws_a_stream():
    done = run("""
        import torch
        from ontick.video import FrameTransformer, Stream, VideoConfig, stream_plan

        torch.set_num_threads(1)
        network = FrameTransformer(VideoConfig(size=16, width=16, layers=1, heads=2, frames=4)).requires_grad_(False)
        for name in ("rolling", "causal"):
            stream = Stream(network, stream_plan(name, network.schedule, 4), (3, 16, 16), action_dim=2)
            assert stream.advance(torch.ones(2)).shape == (1, 1, 3, 16, 16)
    """)
    assert done.returncode == 0, done.stderr
