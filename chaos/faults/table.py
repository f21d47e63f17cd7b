"""All faults, by the name that the report gives them."""

import signal

from chaos.faults.api import kill_api_before_response, kill_api_in_upload, terminate_api
from chaos.faults.context import Fault, FaultContext
from chaos.faults.doorbells import duplicate_doorbells, empty_queue, send_old_doorbells
from chaos.faults.redis_server import (
    cut_connections,
    fill_disk,
    fill_memory,
    freeze_redis,
    kill_redis,
    step_clock,
    terminate_redis,
)
from chaos.faults.workers import freeze_worker, kill_child, kill_worker, terminate_worker


async def deploy(context: FaultContext) -> float:
    """Restart everything, one process after another; several times in a row."""
    slowest = 0.0
    for _ in range(context.deploys):
        for process in (*context.fleet.apis, *context.fleet.workers):
            slowest = max(slowest, await context.restart(process, signal.SIGTERM))
        slowest = max(slowest, await terminate_redis(context))
    return slowest


FAULTS: dict[str, tuple[Fault, int]] = {
    "worker's child killed": (kill_child, 5),
    "worker killed": (kill_worker, 3),
    "worker frozen": (freeze_worker, 1),
    "worker stopped (SIGTERM)": (terminate_worker, 1),
    "API killed in an upload": (kill_api_in_upload, 2),
    "API killed before its answer": (kill_api_before_response, 2),
    "API stopped (SIGTERM)": (terminate_api, 1),
    "Redis killed": (kill_redis, 2),
    "Redis stopped (SIGTERM)": (terminate_redis, 1),
    "Redis frozen": (freeze_redis, 1),
    "connections cut": (cut_connections, 1),
    "Redis at its memory limit": (fill_memory, 1),
    "disk full": (fill_disk, 1),
    "clock stepped": (step_clock, 1),
    "Celery queue emptied": (empty_queue, 1),
    "doorbells doubled": (duplicate_doorbells, 1),
    "doorbells of an older version": (send_old_doorbells, 1),
    "deploys": (deploy, 1),
}
"""The fault, and how often it is injected in a round."""

CONCURRENT = ("worker's child killed", "worker killed", "worker stopped (SIGTERM)", "API killed in an upload")
"""Faults that may be injected during another fault: each acts on one process that is picked at random."""
