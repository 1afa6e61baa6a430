"""Where the time of one chunk goes, kernel by kernel: the plan `exact` at the published shape, batch 1.

    python benchmarks/profile_chunk.py [--device cuda] [--plan exact] [--out FILE]

On CUDA the sum of the kernels' times beside the chunk's wall time tells what is left between kernels. What a persistent
kernel could reach lies between two floors: the weights of all steps, read at the speed measured here, and the
operations at the rate of a large product. Also written: whether the chunk equals that of its eager twin bit for bit.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ontick.benchmarks.contestants import Ours
from ontick.benchmarks.counting import product_rate, read_bandwidth, wait
from ontick.benchmarks.policy import interleaved, percentiles, plan_of, subject
from ontick.files import write_whole
from ontick.runtime import describe_machine

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--plan", default="exact", help="a row of the suites, such as exact or exact-compile")
    parser.add_argument("--n", type=int, default=20, help="chunks for the wall time")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/profile-PLAN-DEVICE.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    with torch.inference_mode():
        network, observations = subject("published", device)
        ours = Ours(options.plan, plan_of(options.plan), network, device)
        twin = Ours("twin", dataclasses.replace(plan_of(options.plan), backend="eager"), network, device)
        equal = torch.equal(ours.answer(observations[0], 0), twin.answer(observations[0], 0))
        wall_s = interleaved([ours], observations[:1], device, options.n, lambda: None)[ours.name]
        with profile(activities=[ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]) as profiled:
            ours.answer(observations[0], 0)
            wait(device)
        work = ours.work(observations[0])
    kernels = _kernels(profiled, device)
    document = {
        "benchmark": "profile_chunk",
        "plan": options.plan,
        "backend": ours.backend,
        "machine": describe_machine(),
        "equals_eager_twin": equal,
        "wall_ms": percentiles(wall_s),
        "bytes_floor_ms": work["bytes_read"] / read_bandwidth(work["bytes_read"] // ours.calls, device) * 1e3,
        "operations_floor_ms": work["flops"] / product_rate(device) * 1e3,
        "kernels": sum(kernel["count"] for kernel in kernels),
        "kernels_ms": sum(kernel["ms"] for kernel in kernels),
        "by_kernel": kernels,
    }
    path = options.out or HERE / "results" / f"profile-{options.plan}-{device.type}.json"
    write_whole(path, json.dumps(document, indent=1) + "\n")
    print(f"wall p50 {document['wall_ms']['p50']:.2f} ms; {document['kernels']} kernels and copies,", end=" ")
    print(f"{document['kernels_ms']:.2f} ms; equal to its eager twin: {equal}")
    print(f"floors: bytes {document['bytes_floor_ms']:.2f} ms, operations {document['operations_floor_ms']:.2f} ms")
    for kernel in kernels[:15]:
        print(f"{kernel['ms']:9.3f} ms {kernel['count']:7d}  {kernel['name'][:90]}")
    print(f"written: {path}")


def _kernels(profiled: profile, device: torch.device) -> list[dict]:
    """What ran on the device (on a CPU, torch's operations), longest first."""
    cuda = device.type == "cuda"
    events = [e for e in profiled.key_averages() if not cuda or e.device_type == DeviceType.CUDA]
    rows = [
        {"name": e.key, "count": e.count, "ms": (e.self_device_time_total if cuda else e.self_cpu_time_total) * 1e-3}
        for e in events
    ]
    return sorted((row for row in rows if row["ms"] > 0), key=lambda row: -row["ms"])


if __name__ == "__main__":
    main()
