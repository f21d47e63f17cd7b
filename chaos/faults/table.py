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


FAULTS: dict[str, Fault] = {
    "worker's child killed": kill_child,
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "worker's child stopped": stop_child,
    "worker stopped (SIGTERM)": terminate_worker,
    "worker's group stopped (SIGTERM)": terminate_group,
    "workers' settings changed": change_settings,
    "releases mixed": mix_releases,
    "poison: child crashes": crash_child,
    "poison: worker goes along": take_worker_along,
    "poison: hang with the GIL": hang_with_gil,
    "API killed in an upload": kill_api_in_upload,
    "API killed before its answer": kill_api_before_response,
    "API stopped (SIGTERM)": terminate_api,
    "open jobs canceled": cancel_open_jobs,
    "Redis killed": kill_redis,
    "Redis stopped (SIGTERM)": terminate_redis,
    "Redis frozen": freeze_redis,
    "Redis slow": slow_redis,
    "Redis empty": empty_redis,
    "Redis without its tail": cut_tail,
    "connections cut": cut_connections,
    "black hole to a worker": black_hole,
    "slow line to the workers": slow_line,
    "replies of Redis lost": lose_replies,
    "Redis at its memory limit": fill_memory,
    "disk full": fill_disk,
    "disk of uploads full": fill_spool,
    "uploads away": take_uploads_away,
    "uploads deleted": delete_uploads,
    "clock stepped": step_clock,
    "clock stepped past deadlines": step_clock_past_deadlines,
    "Celery queue emptied": empty_queue,
    "last doorbell lost": lose_last_doorbell,
    "doorbells doubled": duplicate_doorbells,
    "doorbells of an older version": send_old_doorbells,
    "host killed": kill_host,
    "deploys": deploy,
}
"""Each is injected once in a round."""

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
