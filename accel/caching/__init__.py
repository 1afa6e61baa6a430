"""Block caching: residual branches that are computed at some steps and reused at the others."""

from .schedule import CacheSchedule, load_schedule, sampler_of, schedule_from

__all__ = ["CacheSchedule", "load_schedule", "sampler_of", "schedule_from"]
