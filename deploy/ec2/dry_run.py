"""What `up` would make and what that costs, for `up --dry-run`."""

import boto3

from deploy.ec2 import prices
from deploy.ec2.aws import Aws, has_credentials
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import REDIS_TLS_PORT, Environment
from deploy.ec2.options import UpOptions
from deploy.ec2.plan import Plan, pushed_tag
from deploy.ec2.stack import tell
from deploy.ec2.up import Up

_UNSEEN = (
    "not checked, without AWS credentials: the type and its quota, the subnet, the images, what is there already; "
    "run `aws configure` or `aws sso login`, and this again"
)


def dry_run(session: boto3.Session, name: str, options: UpOptions) -> list[str]:
    """The resources and the costs as lines of text. Makes nothing, and works without credentials and without images.

    Raises:
        DeployError: what `up` would refuse, but for missing images.
    """
    aws = Aws(session, name)
    workers = prices.Hosts(options.workers, options.worker_instance_type) if options.workers else None
    cost = prices.table(aws.region, options.instance_type, gpu=options.gpu, spot=options.spot, workers=workers)
    if not has_credentials(session):
        return [*_resources(aws, options, None), "", *cost, "", _UNSEEN]
    up = Up(aws, options, lambda _: None)
    plan = up.plan()
    try:
        tag = pushed_tag(aws, plan.host, gpu=options.gpu)
    except DeployError as error:
        tag, plan = "", plan._replace(notes=(*plan.notes, str(error)))
    return [
        *_resources(aws, options, plan),
        *([f"  images           {tag}"] if tag else []),
        "",
        *cost,
        *_after(up, plan),
    ]


def _after(up: Up, plan: Plan) -> list[str]:
    """What to know before the real `up`."""
    lines = tell(up.changes(plan), has_workers=plan.state is not None and plan.state.workers > 0)
    return ["", *lines, *plan.notes] if lines or plan.notes else []


def _resources(aws: Aws, options: UpOptions, plan: Plan | None) -> list[str]:
    ports = "80 and 443" if options.domain else "5000"
    ssh = f", 22 for the key pair {options.key_name}" if options.key_name else ""
    disk = prices.GPU_ROOT_GIB if options.gpu else prices.ROOT_GIB
    type_, zone, image = options.instance_type, "a default subnet", "the newest AMI of Amazon Linux 2023"
    data, address, secrets = "new", "new", "new secrets"
    if plan is not None:
        type_, zone, image = f"{plan.host.name} ({plan.host.arch})", plan.place.zone, plan.image_id
        data = plan.volume.id if plan.volume else "new"
        address = plan.address.ip if plan.address else "new"
        secrets = "new secrets" if plan.environment_before is None else "the secrets that are there"
    hops = 2 if options.s3_bucket else 1
    bucket = f", reads s3://{options.s3_bucket}" if options.s3_bucket else ""
    return [
        f"would be in {aws.region} as {aws.name}, and nothing is made now:",
        f"  security group   {ports}{ssh}, from {options.cidr} alone",
        f"  role             pulls images, reads /{aws.name}/*, attaches the volume and the address, SSM{bucket}",
        f"  launch template  {type_}{', spot' if options.spot else ''}, {image}, IMDSv2 with hop limit {hops},",
        f"                   {disk} GiB of encrypted gp3",
        f"  group            one host in {zone}, replaced if it dies",
        f"  data volume      {prices.DATA_GIB} GiB of encrypted gp3: {data}",
        f"  address          {address}",
        f"  parameters       /{aws.name}/environment with {secrets}, /{aws.name}/tag",
        *(_workers(aws, options, plan) if options.workers else []),
    ]


def _workers(aws: Aws, options: UpOptions, plan: Plan | None) -> list[str]:
    type_ = options.worker_instance_type
    if plan is not None and plan.worker is not None:
        type_ = f"{plan.worker.name} ({plan.worker.arch})"
    environment = plan.environment if plan is not None else Environment().for_options(options)
    hosts = f"{options.workers} {'host' if options.workers == 1 else 'hosts'}"
    return [
        f"  workers          a group of {hosts}, {type_}{', spot' if options.spot else ''}, whose role reads",
        f"                   /{aws.name}/workers/* alone; port {REDIS_TLS_PORT} of the first host is open to them",
        f"  uploads          from 64 KiB on wait in {environment.uploads_url}",
    ]
