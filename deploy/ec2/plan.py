"""What `up` will make and what is there already: looked at before anything is made."""

from typing import NamedTuple

from deploy.ec2 import checks
from deploy.ec2.aws import Aws
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import Address, Environment, Kept, Volume
from deploy.ec2.options import UpOptions
from deploy.ec2.push import commit_tag, is_pushed, pushed_tags
from deploy.ec2.registry import Registry
from deploy.ec2.stack import Stack, StackState

EVERYBODY = "0.0.0.0/0"


class Plan(NamedTuple):
    host: checks.HostType
    place: checks.Place
    image_id: str
    state: StackState | None
    volume: Volume | None
    address: Address | None
    environment: Environment
    environment_before: Environment | None
    notes: tuple[str, ...]
    """What the operator should know, and what does not stop `up`."""


def make_plan(aws: Aws, options: UpOptions, stack: Stack, kept: Kept) -> Plan:
    """Look at everything, and make nothing.

    Raises:
        DeployError: what would fail later; the first of it.
    """
    aws.account()
    state = stack.usable()
    host = checks.host_type(aws, options)
    volume = kept.volume()
    place = checks.place(aws, options, volume)
    notes = [checks.check_quota(aws, host, spot=options.spot)]
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
    image_id = _image(aws, options, host, state)
    return Plan(
        host, place, image_id, state, volume, kept.address(), environment, before, tuple(note for note in notes if note)
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
