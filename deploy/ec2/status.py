"""`status`: what is there, and whether it classifies."""

from collections.abc import Callable

from deploy.ec2.aws import Aws
from deploy.ec2.kept import Environment, Kept
from deploy.ec2.options import UpOptions
from deploy.ec2.ready import base_url, missing
from deploy.ec2.remote import HOST_COMMAND, HostNotReachable, Remote
from deploy.ec2.stack import Stack, StackState
from deploy.ec2.workers.hosts import WorkerHosts


def status(aws: Aws, show: Callable[[str], None]) -> bool:
    """Show the deployment, line by line. Returns whether it is up, answers, and serves a model.

    Raises:
        DeployError: the stack of the name is not of Darkroom.
    """
    account = aws.account()
    kept, remote = Kept(aws), Remote(aws)
    state = Stack(aws, show).ours()
    volume, address, tag = kept.volume(), kept.address(), kept.tag()
    show(f"account    {account}, {aws.region}")
    show(f"volume     {f'{volume.id}, {volume.size_gib} GiB, {volume.zone}, {volume.state}' if volume else 'none'}")
    if state is None:
        show(f"stack      none of the name {aws.name}")
        return False
    show(f"stack      {aws.name}, {state.status}")
    show(f"options    up {_options(state).command_line()}")
    show(f"address    {address.ip if address else 'none'}")
    show(f"images     {tag or 'none'}")
    if state.workers:
        _show_workers(aws, state, show)
    if (instance := remote.instance()) is None:
        trouble = remote.trouble(state.group) if state.group else ""
        show(f"host       none{f': {trouble}' if trouble else ''}")
        return False
    show(f"host       {instance.id}, {instance.type}, {instance.zone}, {instance.image_id}, {instance.state}")
    try:
        done = remote.run(instance.id, [HOST_COMMAND, "status"])
        for line in (done.output + done.errors).splitlines():
            show(f"           {line}")
    except HostNotReachable as error:
        show(f"           {error}")
    if address is None:
        return False
    url = base_url(state.parameters.get("Domain", ""), address.ip)
    problem = missing(url, (kept.environment() or Environment()).api_key)
    show(f"service    {problem or f'classifies at {url}'}")
    return not problem


def _show_workers(aws: Aws, state: StackState, show: Callable[[str], None]) -> None:
    first, *others = WorkerHosts(aws, show).lines(state.workers)
    trouble = Remote(aws).trouble(state.worker_group) if state.worker_group else ""
    show(f"workers    {first}{f': {trouble}' if trouble else ''}")
    for line in others:
        show(f"           {line}")


def _options(state: StackState) -> UpOptions:
    """The options that lead to this stack. Types and subnet are among them also if they have their defaults."""
    known = state.parameters
    return UpOptions(
        cidr=known["Cidr"],
        type=known["InstanceType"],
        gpu="/gpu/" in known["ImageSource"],
        spot=known["Spot"] == "yes",
        domain=known["Domain"],
        key_name=known["KeyName"],
        subnet=known["SubnetId"],
        s3_bucket=known["S3Bucket"],
        workers=state.workers,
        worker_type=known.get("WorkerType", ""),
    )
