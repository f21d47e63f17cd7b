"""All faults, by the name that the report gives them."""

import signal

from chaos.faults.api import cancel_open_jobs, kill_api_before_response, kill_api_in_upload, terminate_api
from chaos.faults.context import Fault, FaultContext
from chaos.faults.doorbells import duplicate_doorbells, empty_queue, lose_last_doorbell, send_old_doorbells
from chaos.faults.host import kill_host
from chaos.faults.lines import black_hole, lose_replies, slow_line
from chaos.faults.poison import crash_child, hang_with_gil, take_worker_along
from chaos.faults.redis_server import (
    cut_connections,
    cut_tail,
    empty_redis,
    fill_disk,
    fill_memory,
    freeze_redis,
    kill_redis,
    slow_redis,
    step_clock,
    step_clock_past_deadlines,
    terminate_redis,
)
from chaos.faults.releases import mix_releases
from chaos.faults.spool import delete_uploads, fill_spool, take_uploads_away
from chaos.faults.workers import (
    change_settings,
    freeze_worker,
    kill_child,
    kill_worker,
    stop_child,
    terminate_group,
    terminate_worker,
)


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
    "worker's child stopped": (stop_child, 1),
    "worker stopped (SIGTERM)": (terminate_worker, 1),
    "worker's group stopped (SIGTERM)": (terminate_group, 1),
    "workers' settings changed": (change_settings, 1),
    "releases mixed": (mix_releases, 1),
    "poison: child crashes": (crash_child, 1),
    "poison: worker goes along": (take_worker_along, 1),
    "poison: hang with the GIL": (hang_with_gil, 1),
    "API killed in an upload": (kill_api_in_upload, 2),
    "API killed before its answer": (kill_api_before_response, 2),
    "API stopped (SIGTERM)": (terminate_api, 1),
    "open jobs canceled": (cancel_open_jobs, 1),
    "Redis killed": (kill_redis, 2),
    "Redis stopped (SIGTERM)": (terminate_redis, 1),
    "Redis frozen": (freeze_redis, 1),
    "Redis slow": (slow_redis, 1),
    "Redis empty": (empty_redis, 1),
    "Redis without its tail": (cut_tail, 1),
    "connections cut": (cut_connections, 1),
    "black hole to a worker": (black_hole, 1),
    "slow line to the workers": (slow_line, 1),
    "replies of Redis lost": (lose_replies, 1),
    "Redis at its memory limit": (fill_memory, 1),
    "disk full": (fill_disk, 1),
    "disk of uploads full": (fill_spool, 1),
    "uploads away": (take_uploads_away, 1),
    "uploads deleted": (delete_uploads, 1),
    "clock stepped": (step_clock, 1),
    "clock stepped past deadlines": (step_clock_past_deadlines, 1),
    "Celery queue emptied": (empty_queue, 1),
    "last doorbell lost": (lose_last_doorbell, 1),
    "doorbells doubled": (duplicate_doorbells, 1),
    "doorbells of an older version": (send_old_doorbells, 1),
    "host killed": (kill_host, 1),
    "deploys": (deploy, 1),
}
"""The fault, and how often it is injected in a round."""

CONCURRENT = (
    "worker's child killed",
    "worker killed",
    "worker stopped (SIGTERM)",
    "API killed in an upload",
    "poison: child crashes",
)
"""Faults that may be injected during another fault: each acts on one process that is picked at random."""

ALONE = (
    "deploys",
    "last doorbell lost",
    "host killed",
    "uploads deleted",
    "workers' settings changed",
    "releases mixed",
    "Redis empty",
    "Redis without its tail",
    "clock stepped past deadlines",
)
"""Faults during which none of these is injected: each acts on all processes, or excuses what they lose."""

NOT_BRIEF = (
    "deploys",
    "workers' settings changed",
    "releases mixed",
    "worker's group stopped (SIGTERM)",
    "host killed",
    "poison: hang with the GIL",
    "poison: worker goes along",
    "Redis empty",
    "Redis without its tail",
    "clock stepped past deadlines",
    "releases mixed",
)
"""Faults that `--brief` leaves out: they take most of a minute, make the store forget, or need an earlier commit."""
