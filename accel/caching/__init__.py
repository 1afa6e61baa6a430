"""Block caching: residual branches that are computed at some steps and reused at the others."""

from .cached import Cache, CachedLook, cached, with_schedules
from .schedule import CacheSchedule, load_schedule, sampler_of, schedule_from

__all__ = [
    "Cache",
    "CacheSchedule",
    "CachedLook",
    "cached",
    "load_schedule",
    "sampler_of",
    "schedule_from",
    "with_schedules",
]
