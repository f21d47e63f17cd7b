"""What `up` will make and what is there already: looked at before anything is made."""

from typing import NamedTuple

from deploy.ec2 import checks
from deploy.ec2.aws import Aws
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import UPLOADS_IN_REDIS, Address, Environment, Kept, Volume
from deploy.ec2.options import UpOptions
from deploy.ec2.push import commit_tag, is_pushed, pushed_tags
from deploy.ec2.registry import Registry
from deploy.ec2.remote import HOST_COMMAND, HostNotReachable, Remote
from deploy.ec2.stack import Stack, StackState
from deploy.ec2.workers.certificate import check_openssl
from deploy.ec2.workers.parameters import WorkerParameters

EVERYBODY = "0.0.0.0/0"
_BYTES_OUTSIDE_REDIS = (HOST_COMMAND, "compose", "exec", "-T", "redis", "redis-admin", "hget", "stats", "spooled")


class Plan(NamedTuple):
    host: checks.HostType
    place: checks.Place
    image_id: str
    state: StackState | None
    volume: Volume | None
    address: Address | None
    environment: Environment
    environment_before: Environment | None
    worker: checks.HostType | None
    """Of the hosts with workers alone, if there are to be some."""
    notes: tuple[str, ...]
    """What the operator should know, and what does not stop `up`."""

    @property
    def moves_uploads(self) -> bool:
        """Whether large uploads wait in another place from now on."""
        before = self.environment_before
        return before is not None and before.uploads_url != self.environment.uploads_url


def make_plan(aws: Aws, options: UpOptions, stack: Stack, kept: Kept) -> Plan:
    """Look at everything, and make nothing.

    Raises:
        DeployError: what would fail later; the first of it.
    """
    aws.account()
    state = stack.usable()
    host = checks.host_type(aws, options)
    worker = checks.worker_host_type(aws, options, host)
    volume = kept.volume()
    place = checks.place(aws, options, volume)
    notes = checks.check_quotas(aws, [host] + [worker] * options.workers if worker else [host], spot=options.spot)
    if worker is not None:
        checks.check_dns_names(aws, place.vpc_id)
        check_openssl()
    if options.key_name:
        checks.check_key_pair(aws, options.key_name)
    if options.domain and options.cidr != EVERYBODY:
        notes.append(
            f"Let's Encrypt must reach port 80 or 443 to certify {options.domain}, and {options.cidr} keeps it out: "
            f"--cidr {EVERYBODY} lets it in"
        )
    before = kept.environment()
    environment = (before or Environment()).for_options(options)
    environment.check(kept.environment_parameter)
    if worker is not None:
        WorkerParameters(aws, kept).check(environment, worker, gpu=options.gpu)
    image_id = _image(aws, options, host, state)
    plan = Plan(host, place, image_id, state, volume, kept.address(), environment, before, worker, tuple(notes))
    if plan.moves_uploads:
        _refuse_waiting_uploads(Remote(aws), plan)
    return plan


def _refuse_waiting_uploads(remote: Remote, plan: Plan) -> None:
    """Uploads are looked for in one place alone. The host sees to what comes in from now on.

    Raises:
        DeployError: some wait. Without a host, or one that does not answer, it is not known.
    """
    before = plan.environment_before
    if before is None or before.uploads_url == UPLOADS_IN_REDIS or (instance := remote.instance()) is None:
        return
    try:
        answer = remote.run(instance.id, _BYTES_OUTSIDE_REDIS).output.strip()
    except HostNotReachable:
        return
    if answer.isdigit() and int(answer):
        raise DeployError(
            f"{int(answer):,} bytes of uploads, or of failed images for a retry, wait in {before.uploads_url}, and "
            f"would not be found in {plan.environment.uploads_url}: run `up` again once those jobs are done or deleted "
            "(`exec -- darkroom-host compose stop api` keeps new ones out)"
        )


def _image(aws: Aws, options: UpOptions, host: checks.HostType, state: StackState | None) -> str:
    """The AMI of the stack as long as it fits: a newer one would replace the host."""
    known = state.parameters if state is not None else {}
    if known.get("ImageSource") == host.image_source and not options.new_ami:
        return known["ImageId"]
    return checks.newest_image(aws, host.image_source)


def registry_of(aws: Aws) -> str:
    """Host name of the account's registry."""
    return Registry(aws.session).login().registry


def pushed_tag(aws: Aws, host: checks.HostType, *, gpu: bool) -> str:
    """The images of the commit that is checked out, for this kind of host.

    Raises:
        DeployError: they were not pushed.
    """
    tag, registry = commit_tag(arch=host.arch, gpu=gpu), registry_of(aws)
    if is_pushed(aws.session, registry, tag):
        return tag
    options = ("" if host.arch == "amd64" else f" --arch {host.arch}") + (" --gpu" if gpu else "")
    commit = tag.partition("-")[0]
    others = ", ".join(it for it in pushed_tags(aws.session, registry) if it.partition("-")[0] == commit)
    why = f" (this commit was pushed as {others}, and {host.name} is {host.arch})" if others else ""
    raise DeployError(f"there are no images {tag} in ECR{why}: run `push{options}` first")
