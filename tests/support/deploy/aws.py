"""AWS on this machine: moto's server, and in front of it what moto has not: commands that run, quotas, expired keys."""

import json
import re
import subprocess
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from threading import Thread
from typing import Any, Self

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.deploy.moto_conditions import heed_conditions

heed_conditions()
REGION = "eu-central-1"
EXPIRED = "AKIAEXPIRED000000000"
COMMAND_SECONDS_MAX = 600
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

Environ = dict[str, Any]
Run = Callable[[str, list[str]], subprocess.CompletedProcess[str]]


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        pass


class AwsServer:
    """A context manager. `environment` has what boto3 and the AWS command line need to speak to it.

    Attributes:
        run: runs the lines of an SSM command on a host; None while SSM reaches no host.
        quotas: vCPUs by quota code.
        denied: the action that the credentials may not call.
        after: called when a request of this action was answered, such as `CreateStack`.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.run: Run | None = None
        self.quotas: dict[str, float] = {}
        self.after: dict[str, Callable[[], None]] = {}
        self.denied: str | None = None
        self._invocations: dict[str, dict[str, Any]] = {}
        self._session = boto3.Session("testing", "testing", region_name=REGION)
        self._clients: dict[str, Any] = {}
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(address, 0, self._app, threaded=True, request_handler=QuietHandler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment: Mapping[str, str] = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def client(self, service: str) -> Any:
        if service not in self._clients:  # each takes a tenth of a second to make
            self._clients[service] = self._session.client(service, endpoint_url=self.url)
        return self._clients[service]

    def reset(self) -> None:
        """An empty account, as new."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30).close()
        self.run, self.quotas, self.after, self.denied, self._invocations = None, {}, {}, None, {}

    def made(self) -> dict[str, list[str]]:
        """What is in the account and costs money or grants something, by kind; empty kinds are left out."""
        ec2, iam = self.client("ec2"), self.client("iam")
        ours = [{"Key": "Name", "Option": "BeginsWith", "Values": ["/darkroom", "/second"]}]  # not those of AWS
        reservations = ec2.describe_instances()["Reservations"]
        instances = [it for reservation in reservations for it in reservation["Instances"]]
        volumes = ec2.describe_volumes()["Volumes"]
        found = {
            "stacks": [it["StackName"] for it in self.client("cloudformation").describe_stacks()["Stacks"]],
            "instances": [it["InstanceId"] for it in instances if it["State"]["Name"] != "terminated"],
            "volumes": [  # without the disks of instances
                it["VolumeId"]
                for it in volumes
                if not it["Attachments"] or it["Attachments"][0]["Device"] == "/dev/sdf"
            ],
            "addresses": [it["PublicIp"] for it in ec2.describe_addresses()["Addresses"]],
            "security groups": [
                it["GroupId"] for it in ec2.describe_security_groups()["SecurityGroups"] if it["GroupName"] != "default"
            ],
            "launch templates": [it["LaunchTemplateId"] for it in ec2.describe_launch_templates()["LaunchTemplates"]],
            "groups": [
                it["AutoScalingGroupName"]
                for it in self.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
            ],
            "roles": [it["RoleName"] for it in iam.list_roles()["Roles"]],
            "profiles": [it["InstanceProfileName"] for it in iam.list_instance_profiles()["InstanceProfiles"]],
            "parameters": sorted(
                it["Name"] for it in self.client("ssm").describe_parameters(ParameterFilters=ours)["Parameters"]
            ),
            "repositories": sorted(
                it["repositoryName"] for it in self.client("ecr").describe_repositories()["repositories"]
            ),
        }
        return {kind: names for kind, names in found.items() if names}

    def _app(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if f"Credential={EXPIRED}/" in environ.get("HTTP_AUTHORIZATION", ""):
            text = "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>expired</Message></Error></ErrorResponse>"
            start_response("403 Forbidden", [("Content-Type", "text/xml")])
            return [text.encode()]
        own = {
            "AmazonSSM.SendCommand": self._send_command,
            "AmazonSSM.GetCommandInvocation": self._invocation,
            "ServiceQuotasV20190624.GetServiceQuota": self._quota,
        }.get(target)
        if own is not None:
            body = json.loads(_read(environ))
            status, answer = own(body)
            start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
            return [json.dumps(answer).encode()]
        body = _read(environ)
        environ["wsgi.input"] = BytesIO(body)
        found = re.search(rb"(?:^|&)Action=(\w+)", body)
        action = found[1].decode() if found else target.partition(".")[2]
        if action == self.denied:
            error = "<Code>UnauthorizedOperation</Code><Message>no</Message>"
            text = f"<Response><Errors><Error>{error}</Error></Errors></Response>"
            start_response("403 Forbidden", [("Content-Type", "text/xml")])
            return [text.encode()]
        answer = list(self._moto(environ, start_response))
        if hook := self.after.get(action):
            hook()
        return answer

    def _send_command(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        (instance_id,) = body["InstanceIds"]
        if (run := self.run) is None:
            return _error("InvalidInstanceId", "Instances not in a valid state for account")
        command_id = str(uuid.uuid4())
        sent = {"CommandId": command_id, "InstanceId": instance_id}
        self._invocations[command_id] = sent | {"Status": "InProgress"}

        def finish() -> None:
            done = run(instance_id, body["Parameters"]["commands"])
            status = "Failed" if done.returncode else "Success"
            self._invocations[command_id] = sent | {
                "Status": status,
                "StatusDetails": status,
                "ResponseCode": done.returncode,
                "StandardOutputContent": done.stdout[:24_000],
                "StandardErrorContent": done.stderr[:24_000],
            }

        Thread(target=finish, daemon=True).start()
        return "200 OK", {"Command": {"CommandId": command_id}}

    def _invocation(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        found = self._invocations.get(body["CommandId"])
        return ("200 OK", found) if found else _error("InvocationDoesNotExist", "")

    def _quota(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        value = self.quotas.get(body["QuotaCode"], 32.0)
        return "200 OK", {"Quota": {"QuotaCode": body["QuotaCode"], "Value": value}}


def _read(environ: Environ) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _error(code: str, message: str) -> tuple[str, dict[str, Any]]:
    return "400 Bad Request", {"__type": code, "message": message}


OURS = [{"Key": "darkroom", "Value": "images"}]


def put_images(aws: AwsServer, tag: str, repository: str = "darkroom-api", tags: list[dict[str, str]] = OURS) -> None:
    """Make a tag that looks pushed: `push` fills the repository of the API last."""
    ecr = aws.client("ecr")
    with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName=repository, tags=tags)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": {"digest": f"sha256:{tag}"}})
    ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)
