"""`up`: a host that classifies, and hosts with workers beside it, made or changed to what the options say."""

from collections.abc import Callable

from deploy.ec2 import prices
from deploy.ec2.aws import Aws
from deploy.ec2.errors import DeployError
from deploy.ec2.host.user_data import BootValues, user_data
from deploy.ec2.kept import Address, Environment, Kept, Volume
from deploy.ec2.options import UpOptions
from deploy.ec2.plan import Plan, make_plan, pushed_tag, registry_of
from deploy.ec2.ready import base_url, not_leading_to, wait_until_ready
from deploy.ec2.release import HostRelease, wanted_release
from deploy.ec2.stack import Change, Stack, tell, template
from deploy.ec2.workers.rollout import WorkerRollout

SAMPLE = "tests/data/0007-shirt.png"


class Up:
    def __init__(self, aws: Aws, options: UpOptions, say: Callable[[str], None]) -> None:
        self._aws = aws
        self._options = options
        self._say = say
        self._kept = Kept(aws)
        self._stack = Stack(aws, say)
        self._release = HostRelease(aws, say, wait_seconds=options.wait_seconds)
        self._workers = WorkerRollout(aws, self._kept, options, say)
        self._environment_before: Environment | None = None
        """What the first host goes back to."""

    def plan(self) -> Plan:
        return make_plan(self._aws, self._options, self._stack, self._kept)

    def run(self) -> list[str]:
        """Make or change it, and wait until it classifies.

        Returns:
            Lines that say how to use it.

        Raises:
            DeployError: nothing was made, or what was made is not ready; `up` again goes on from there.
        """
        plan = self.plan()
        tag = pushed_tag(self._aws, plan.host, gpu=self._options.gpu)
        for note in plan.notes:
            self._say(note)
        before = self._environment_before = plan.environment_before
        if before is None or before.lines != plan.environment.lines:
            self._kept.write_environment(plan.environment)
        if self._kept.tag() is None:
            self._kept.write_tag(tag)
        volume = plan.volume or self._kept.make_volume(plan.place.zone)
        address = plan.address or self._kept.make_address()
        self._workers.prepare(plan, address, tag)
        self._apply(plan, volume, address)
        if plan.state is not None:
            self._change(plan, tag)
        url = base_url(self._options.domain, address.ip)
        if self._options.domain and (line := not_leading_to(self._options.domain, address.ip)):
            self._say(line)
        wait_until_ready(
            url,
            plan.environment.api_key,
            where=self._release.where,
            say=self._say,
            seconds_max=self._options.wait_seconds,
        )
        if plan.state is not None:  # a host that was still starting may have come up with the former release
            self._change(plan, tag)
        self._workers.finish(tag)
        return [
            f"ready: {tag} at {url}",
            f"curl -H 'Authorization: Bearer {plan.environment.api_key}' -F file=@{SAMPLE} {url}/predict",
        ]

    def parameters(self, plan: Plan, volume: Volume, address: Address) -> dict[str, str]:
        """Of the stack."""
        options = self._options
        return {
            "ImageId": plan.image_id,
            "ImageSource": plan.host.image_source,
            "InstanceType": plan.host.name,
            "Spot": "yes" if options.spot else "no",
            "RootGiB": str(prices.GPU_ROOT_GIB if options.gpu else prices.ROOT_GIB),
            "KeyName": options.key_name,
            "Cidr": options.cidr,
            "Domain": options.domain,
            "S3Bucket": options.s3_bucket,
            "VpcId": plan.place.vpc_id,
            "SubnetId": plan.place.subnet_id,
            "VolumeId": volume.id,
            "AllocationId": address.allocation_id,
            "Workers": str(options.workers),
            "WorkerType": plan.worker.name if plan.worker is not None else "",
        }

    def body(self, volume: Volume, address: Address) -> str:
        """The template, with the boot scripts of this release, also without worker hosts: so they do not change it."""
        values = BootValues(
            name=self._aws.name,
            region=self._aws.region,
            registry=registry_of(self._aws),
            tag_parameter=self._kept.tag_parameter,
            environment_parameter=self._kept.environment_parameter,
            volume_id=volume.id,
            allocation_id=address.allocation_id,
            gpu=self._options.gpu,
            s3=bool(self._options.s3_bucket),
        )
        worker_values = values._replace(
            tag_parameter=self._workers.parameters.tag_parameter,
            environment_parameter=self._workers.parameters.environment_parameter,
            volume_id="",
            allocation_id="",
            s3=False,
        )
        return template(user_data(values), user_data(worker_values))

    def changes(self, plan: Plan) -> list[Change]:
        """What `run` would change of a stack that is there."""
        if plan.state is None or plan.volume is None or plan.address is None:
            return []
        parameters, body = self.parameters(plan, plan.volume, plan.address), self.body(plan.volume, plan.address)
        return self._stack.changes(plan.state, parameters, body)

    def _apply(self, plan: Plan, volume: Volume, address: Address) -> None:
        parameters, body = self.parameters(plan, volume, address), self.body(volume, address)
        if plan.state is None:
            self._say(f"making the stack {self._aws.name} in {plan.place.zone}")
        else:
            changes = self._stack.changes(plan.state, parameters, body)
            if not changes:
                return
            for line in tell(changes, has_workers=plan.state.workers > 0):
                self._say(line)
        self._stack.apply(plan.state, parameters, body)

    def _change(self, plan: Plan, tag: str) -> None:
        """Run this release on the hosts that are there.

        Workers go before the API, which may write what only they can read. Where uploads move, the API goes first: it
        marks their new place.
        """
        if plan.moves_uploads:
            self._change_host(plan, tag)
            self._workers.change(tag)
        else:
            self._workers.change(tag)
            self._change_host(plan, tag)

    def _change_host(self, plan: Plan, tag: str) -> None:
        """Run this release on the first host. If it does not get healthy, the parameters are as before."""
        try:
            self._release.change(wanted_release(tag, plan.environment))
        except DeployError:
            if self._environment_before is not None:
                self._kept.write_environment(self._environment_before)
            if plan.moves_uploads:
                self._workers.restore()
            raise
        if self._kept.tag() != tag:
            self._kept.write_tag(tag)
        self._environment_before = plan.environment
