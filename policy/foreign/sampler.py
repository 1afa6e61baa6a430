"""What a foreign noise scheduler says of the network: schedule, trained levels, parameterisation, clipping.

The names are those of diffusers' schedulers, which Diffusion Policy and LeRobot both configure. How a chunk is sampled
(which levels, DDPM or DDIM) is a plan's affair here.
"""

from collections.abc import Mapping
from typing import Any

from ...checkpoints import shown
from ...errors import InputError

SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")
PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
BETAS = {"beta_start": 1e-4, "beta_end": 0.02}  # of our linear schedules; the cosine one has none
MOST_LEVELS = 10_000
UNSERVED = ("trained_betas", "thresholding", "rescale_betas_zero_snr")


def sampler_settings(found: Mapping[str, Any], what: str) -> dict[str, Any]:
    """diffusers' names -> `schedule`, `train_levels`, `prediction` and `clip` of a network's config; what is not said
    has diffusers' default. Raises InputError for what no schedule here serves."""
    schedule, prediction = found.get("beta_schedule", "linear"), found.get("prediction_type", "epsilon")
    levels, clip = found.get("num_train_timesteps", 1000), found.get("clip_sample_range", 1.0)
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise InputError(f"{what}: beta_schedule is {shown(schedule)}, served are {', '.join(SCHEDULES)}")
    if not isinstance(prediction, str) or prediction not in PREDICTIONS:
        raise InputError(f"{what}: prediction_type is {shown(prediction)}, served are {', '.join(PREDICTIONS)}")
    if type(levels) is not int or not 1 <= levels <= MOST_LEVELS:
        raise InputError(f"{what}: num_train_timesteps is {shown(levels)}, wanted a whole number, 1 to {MOST_LEVELS}")
    if not isinstance(clip, int | float) or not clip > 0:
        raise InputError(f"{what}: clip_sample_range is {shown(clip)}, wanted a number above 0")
    for name, ours in BETAS.items() if schedule != "squaredcos_cap_v2" else ():
        if found.get(name, ours) != ours:
            raise InputError(f"{what}: {name} is {shown(found[name])}, served is {ours} for beta_schedule {schedule}")
    for name in UNSERVED:
        if found.get(name):
            raise InputError(f"{what}: its noise scheduler uses {name}, which is not served")
    clips = bool(found.get("clip_sample", True))
    kept = {"schedule": schedule, "train_levels": levels, "prediction": PREDICTIONS[prediction]}
    return {**kept, "clip": float(clip) if clips else None}
