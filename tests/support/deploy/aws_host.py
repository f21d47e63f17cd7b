"""A stand-in for the EC2 host: a small `darkroom-host`, and a service on the address that is kept."""

import json
import os
import subprocess
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.support.deploy.aws import COMMAND_SECONDS_MAX, AwsServer

_COMMAND = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
  status)
    echo "darkroom-host: current $(cat current 2>/dev/null)"
    [ ! -e current ] || echo "darkroom-host: settings $(sha256sum <env | cut --delimiter ' ' --fields 1)"
    ;;
  upgrade)
    if grep -qx "$2" broken; then
      echo "darkroom-host: $2 did not get healthy" >&2
      exit $(cat stuck 2>/dev/null || echo 1)
    fi
    echo "$2" >current; cp env.new env; echo "darkroom-host: runs $2" ;;
  compose) cat spooled 2>/dev/null || echo ;;
esac
"""


class StandInCommand:
    """`darkroom-host` in a folder of its own, and commands that find it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = folder / "darkroom-host"
        command.write_text(_COMMAND)
        command.chmod(0o755)
        (folder / "broken").touch()

    @property
    def current(self) -> str:
        """The tag that runs."""
        return (self._folder / "current").read_text().strip()

    def pretend(self, tag: str, environment: str | None = None) -> None:
        """That this runs."""
        (self._folder / "current").write_text(tag)
        if environment is not None:
            (self._folder / "env").write_text(environment)

    def hold_uploads(self, size: int) -> None:
        """That Redis counts so many bytes of uploads outside of it."""
        (self._folder / "spooled").write_text(f"{size}\n")

    def break_tag(self, tag: str, *, former_too: bool = False) -> None:
        """An upgrade to it does not get healthy; nor does the one before it any more, with `former_too`."""
        (self._folder / "broken").write_text(f"{tag}\n")
        if former_too:
            (self._folder / "stuck").write_text("3")

    def execute(self, lines: list[str], environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script, in which an upgrade takes `environment` as the new settings."""
        if (self._folder / "current").exists():
            (self._folder / "env.new").write_text(environment)
        return subprocess.run(
            ["sh", "-c", "\n".join(lines)],
            env={**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )


class StandInHost(StandInCommand):
    """Boots when the stack is made, as the group would start a host: takes volume, address and the tag that is told."""

    def __init__(self, aws: AwsServer, folder: Path, name: str = "darkroom") -> None:
        super().__init__(folder)
        self._aws = aws
        self._name = name
        self._server: ThreadingHTTPServer | None = None
        self.never_starts = ""
        """A tag whose images do not start."""
        self.serving = True
        """Whether a worker serves a model."""
        aws.run = self.run
        aws.after["CreateStack"] = self.boot

    def run(self, instance_id: str, lines: list[str]) -> subprocess.CompletedProcess[str]:
        return self.execute(lines, self._environment())

    def boot(self) -> None:
        """Take the volume and the address from the host before, and start what the parameters say."""
        ec2, ssm = self._aws.client("ec2"), self._aws.client("ssm")
        groups = self._aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        (group,) = [it for it in groups if "WorkerGroup" not in it["AutoScalingGroupName"]]
        instance_id = group["Instances"][0]["InstanceId"]
        (volume,) = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [f"{self._name}-data"]}])["Volumes"]
        if volume["State"] == "available":
            ec2.attach_volume(VolumeId=volume["VolumeId"], InstanceId=instance_id, Device="/dev/sdf")
        (address,) = ec2.describe_addresses()["Addresses"]
        ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=instance_id, AllowReassociation=True)
        tag = ssm.get_parameter(Name=f"/{self._name}/tag")["Parameter"]["Value"]
        if tag == self.never_starts:
            return
        self.pretend(tag, self._environment())
        values = dict(line.split("=", 1) for line in self._environment().splitlines())
        self._serve(address["PublicIp"], json.loads(values["API_KEYS"])["admin"])

    def _environment(self) -> str:
        """The file as the AWS command line writes it."""
        found = self._aws.client("ssm").get_parameter(Name=f"/{self._name}/environment", WithDecryption=True)
        return f"{found['Parameter']['Value']}\n"

    def _serve(self, ip: str, api_key: str) -> None:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = 404, {"detail": "no such page"}
                if self.path == "/readyz":
                    status, answer = 200, {"status": "ok"}
                elif self.path == "/v1/models":
                    if self.headers["Authorization"] == f"Bearer {api_key}":
                        status, answer = 200, {"models": [{"serving": {"workers": int(host.serving)}}]}
                    else:
                        status, answer = 401, {"detail": "no such key"}
                self.send_response(status)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.close()
        self._server = ThreadingHTTPServer((ip, 5000), Handler)  # moto's addresses are of this machine: 127.a.b.c
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
