"""The one place that makes torchvision importable beside a CPU build of torch.

The torchvision wheel is linked against CUDA, so beside a CPU torch its compiled operators do not load and
`import torchvision` fails on the missing `torchvision::nms`. robomimic and diffusers import torchvision but never
call those operators, so declaring them is enough. Where the operators load, this does nothing.
"""

import sys

import torch

_declared: list[torch.library.Library] = []  # a library's operators live as long as the object


def ensure_torchvision() -> None:
    """Make `import torchvision` work; call it before importing robomimic or diffusers. Does nothing without
    torchvision."""
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision  # noqa: F401
