"""What is kept outside of the stack, so that no update of it takes them: the data volume, the address, the parameters.

Volume and address are found by their tag, and made once. The parameters are `/NAME/environment`, the host's `.env`, and
`/NAME/tag`, the images that shall run.
"""

import json
import secrets
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deploy.ec2.aws import Aws, Deadline, code_of
from deploy.ec2.errors import DeployError
from deploy.ec2.options import OWN_SETTINGS, UpOptions, refuse_folder
from deploy.ec2.prices import DATA_GIB

PARAMETER_BYTES_MAX = 4096
"""Of a standard parameter of SSM."""
DETACH_SECONDS_MAX = 600
OWNER = "admin"
REDIS_PASSWORDS = ("REDIS_PASSWORD", "REDIS_WORKER_PASSWORD")
REDIS_TLS_PORT = 6380
UPLOADS_FOLDER, UPLOADS_IN_REDIS = "file:///var/lib/darkroom/uploads", "redis:"
"""Where large uploads wait unless the settings say so: in compose's folder, or with worker hosts in Redis."""


class Volume(NamedTuple):
    id: str
    zone: str
    size_gib: int
    state: str


class Address(NamedTuple):
    allocation_id: str
    ip: str
    association_id: str = ""
    """Empty while no host has it."""


class Environment:
    """The lines of the host's `.env`, in the order in which they are written."""

    def __init__(self, lines: tuple[str, ...] = ()) -> None:
        self.lines = lines

    def value(self, name: str) -> str:
        return next((line.partition("=")[2] for line in self.lines if line.startswith(f"{name}=")), "")

    @property
    def uploads_url(self) -> str:
        """Where large uploads wait. Without the setting, deploy/ec2/host/darkroom-host.sh decides alike."""
        given = self.value("UPLOADS_URL").strip("'\"")
        return given or (UPLOADS_IN_REDIS if self.value("REDIS_TLS_PORT") else UPLOADS_FOLDER)

    @property
    def api_key(self) -> str:
        """The key that was drawn, or the first of others in its place; empty if that is no table of keys."""
        try:
            keys = json.loads(self.value("API_KEYS").strip("'") or "{}")
        except ValueError:
            return ""
        return str(keys.get(OWNER) or next(iter(keys.values()), "")) if isinstance(keys, dict) else ""

    def for_options(self, options: UpOptions) -> "Environment":
        """With the network of these options. Secrets stay or are drawn; settings stay if none are given."""
        values = {
            "API_KEYS": self.value("API_KEYS") or json.dumps({OWNER: secrets.token_urlsafe(32)}, separators=(",", ":")),
            **{name: self.value(name) or secrets.token_urlsafe(32) for name in REDIS_PASSWORDS},
        }
        if options.domain:  # the edge alone is reached from outside
            values |= {"DOMAIN": options.domain, "COMPOSE_PROFILES": "tls"}
        else:
            values |= {"BIND": "0.0.0.0"}  # noqa: S104 - of the host, whose security group has the range
        if options.workers:  # the host opens Redis to them, on its private address
            values |= {"REDIS_TLS_PORT": str(REDIS_TLS_PORT)}
        settings = options.settings
        if settings is None:
            settings = tuple(line for line in self.lines if line.partition("=")[0] not in OWN_SETTINGS)
        if options.workers:
            refuse_folder(settings)
        return Environment((*(f"{name}={value}" for name, value in values.items()), *settings))

    def text(self) -> str:
        """As it is stored."""
        return "\n".join(self.lines)

    def file(self) -> str:
        """As the host has it."""
        return f"{self.text()}\n"

    def check(self, parameter: str) -> None:
        """Raises `DeployError` if SSM would not take it as the value of a parameter."""
        if (size := len(self.text().encode())) > PARAMETER_BYTES_MAX:
            raise DeployError(
                f"{parameter} would have {size} bytes, and SSM takes {PARAMETER_BYTES_MAX}: fewer settings"
            )


class Kept:
    """Finds, makes and deletes what is kept, of one deployment."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.environment_parameter = f"/{aws.name}/environment"
        self.tag_parameter = f"/{aws.name}/tag"

    def volume(self) -> Volume | None:
        filters = [*self._aws.tagged, {"Name": "tag:Name", "Values": [self._data_name]}]
        found = self._aws.ec2.describe_volumes(Filters=filters)["Volumes"]
        found = [volume for volume in found if volume["State"] not in ("deleting", "deleted")]
        if len(found) > 1:
            ids = ", ".join(volume["VolumeId"] for volume in found)
            raise DeployError(
                f"several volumes are tagged as the data of {self._aws.name} ({ids}): remove the tag of one"
            )
        return _volume(found[0]) if found else None

    def address(self) -> Address | None:
        found = self._aws.ec2.describe_addresses(Filters=self._aws.tagged)["Addresses"]
        if len(found) > 1:
            ips = ", ".join(address["PublicIp"] for address in found)
            raise DeployError(f"several addresses are tagged {self._aws.name} ({ips}): remove the tag of one")
        if not found:
            return None
        (address,) = found
        return Address(address["AllocationId"], address["PublicIp"], address.get("AssociationId") or "")

    def make_volume(self, zone: str) -> Volume:
        made = self._aws.ec2.create_volume(
            AvailabilityZone=zone,
            Size=DATA_GIB,
            VolumeType="gp3",
            Encrypted=True,
            TagSpecifications=[
                {"ResourceType": "volume", "Tags": [*self._aws.tags, {"Key": "Name", "Value": self._data_name}]}
            ],
        )
        return _volume(made)

    def make_address(self) -> Address:
        tags = [*self._aws.tags, {"Key": "Name", "Value": self._aws.name}]
        made = self._aws.ec2.allocate_address(
            Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}]
        )
        return Address(made["AllocationId"], made["PublicIp"])

    def environment(self) -> Environment | None:
        text = self.parameter(self.environment_parameter)
        return None if text is None else Environment(tuple(text.splitlines()))

    def tag(self) -> str | None:
        """The images that the host runs, or shall run from its first boot on."""
        return self.parameter(self.tag_parameter)

    def write_environment(self, environment: Environment) -> None:
        self.put(self.environment_parameter, environment.text(), is_secret=True)

    def write_tag(self, tag: str) -> None:
        self.put(self.tag_parameter, tag)

    def release_address(self) -> Address | None:
        if (address := self.address()) is not None:
            if address.association_id:
                self._aws.ec2.disassociate_address(AssociationId=address.association_id)
            self._aws.ec2.release_address(AllocationId=address.allocation_id)
        return address

    def delete_tag(self) -> None:
        self.delete_parameter(self.tag_parameter)

    def delete_data(self) -> Volume | None:
        """The volume and the secrets. Waits until the volume has left its host."""
        if (volume := self.volume()) is not None:
            deadline = Deadline(DETACH_SECONDS_MAX, f"{volume.id} is still attached to a host")
            while (present := self.volume()) is not None and present.state != "available":
                deadline.wait()
            self._aws.ec2.delete_volume(VolumeId=volume.id)
        self.delete_parameter(self.environment_parameter)
        return volume

    @property
    def _data_name(self) -> str:
        return f"{self._aws.name}-data"

    def parameter(self, name: str) -> str | None:
        """The value of an SSM parameter, if there is one."""
        try:
            value: str = self._aws.ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except self._aws.ssm.exceptions.ParameterNotFound:
            return None
        return value

    def put(self, name: str, value: str, *, is_secret: bool = False) -> None:
        kind = "SecureString" if is_secret else "String"
        self._aws.ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)

    def delete_parameter(self, name: str) -> None:
        try:
            self._aws.ssm.delete_parameter(Name=name)
        except ClientError as error:
            if code_of(error) != "ParameterNotFound":
                raise


def _volume(found: dict[str, Any]) -> Volume:
    return Volume(found["VolumeId"], found["AvailabilityZone"], found["Size"], found["State"])
