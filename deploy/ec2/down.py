"""`down`: ends what costs money, and keeps the data unless told otherwise."""

from collections.abc import Callable

from deploy.ec2.aws import TAG, Aws
from deploy.ec2.kept import Kept
from deploy.ec2.registry import Registry
from deploy.ec2.stack import Stack
from deploy.ec2.workers.parameters import WorkerParameters


def down(aws: Aws, *, delete_data: bool, say: Callable[[str], None]) -> list[str]:
    """Delete the stack, the address and the tag; with `delete_data` also the volume, the secrets and the images.

    Each step is done if it is still to do, so an interrupted `down` can be run again.

    Returns:
        Lines that say what is left.

    Raises:
        DeployError: the stack is not of Darkroom, or something in it cannot be deleted.
    """
    aws.account()
    kept = Kept(aws)
    if Stack(aws, say).delete():
        say(f"the stack {aws.name} is deleted")
    else:
        say(f"there is no stack {aws.name} in {aws.region}")
    if address := kept.release_address():
        say(f"the address {address.ip} is released")
    kept.delete_tag()
    WorkerParameters(aws, kept).delete()
    if delete_data:
        if volume := kept.delete_data():
            say(f"the data volume {volume.id} is deleted")
        return [_delete_images(aws)]
    left = ["images in ECR are kept: `down --delete-data` deletes them, too"]
    if volume := kept.volume():
        data = f"the data volume {volume.id} ({volume.size_gib} GiB) and the secrets in {kept.environment_parameter}"
        left.insert(0, f"{data} are kept for the next `up`")
    return left


def _delete_images(aws: Aws) -> str:
    """Delete the repositories, which all deployments of a region share, with the last of these."""
    if others := _other_deployments(aws):
        return f"images in ECR are kept for {', '.join(others)}"
    repositories = Registry(aws.session).delete_all()
    return f"deleted in ECR: {', '.join(repositories)}" if repositories else "nothing is left"


def _other_deployments(aws: Aws) -> list[str]:
    """Names of other deployments that have a stack or data in this region."""
    stacks = aws.cloudformation.get_paginator("describe_stacks").paginate()
    volumes = aws.ec2.get_paginator("describe_volumes").paginate(Filters=[{"Name": "tag-key", "Values": [TAG]}])
    tagged = [stack for page in stacks for stack in page["Stacks"]]
    tagged += [volume for page in volumes for volume in page["Volumes"]]
    names = {tag["Value"] for resource in tagged for tag in resource.get("Tags", []) if tag["Key"] == TAG}
    return sorted(names - {aws.name})
