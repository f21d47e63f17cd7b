"""`python -m deploy.ec2`: Darkroom on EC2, on one host or with workers on further ones. docs/EC2.md has the steps."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3
from botocore.exceptions import ProfileNotFound

from deploy.ec2 import options as choices
from deploy.ec2.aws import Aws, one_line_errors
from deploy.ec2.down import down
from deploy.ec2.dry_run import dry_run
from deploy.ec2.errors import DeployError
from deploy.ec2.options import UpOptions
from deploy.ec2.push import push
from deploy.ec2.remote import OUTPUT_CHARACTERS_MAX, HostNotReachable, Remote
from deploy.ec2.status import status
from deploy.ec2.up import Up

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 1 for any failure, after one line that says what is wrong."""
    given = _parser().parse_args(arguments)
    try:
        with one_line_errors():
            exit_code: int = given.run(given)
            return exit_code
    except DeployError as error:
        print(f"darkroom ec2: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("darkroom ec2: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _push(given: argparse.Namespace) -> int:
    pushed = push(_session(given), name=given.name, arch=given.arch, gpu=given.gpu)
    print(f"pushed {pushed.tag} for {pushed.arch} to {pushed.registry}")
    return 0


def _up(given: argparse.Namespace) -> int:
    options = choices.check(
        UpOptions(
            cidr=given.cidr,
            type=given.type,
            gpu=given.gpu,
            spot=given.spot,
            domain=given.domain,
            key_name=given.key_name,
            subnet=given.subnet,
            s3_bucket=given.s3_bucket,
            workers=given.workers,
            worker_type=given.worker_type,
            new_ami=given.new_ami,
            settings=choices.read_settings(given.env_file) if given.env_file else None,
            wait_seconds=given.wait_seconds,
        )
    )
    if given.dry_run:
        lines = dry_run(_session(given), given.name, options)
    else:
        lines = Up(Aws(_session(given), given.name), options, _say).run()
    print("\n".join(lines))
    return 0


def _status(given: argparse.Namespace) -> int:
    return 0 if status(Aws(_session(given), given.name), print) else 1


def _exec(given: argparse.Namespace) -> int:
    """Run the command on a host; its output and exit code become this one's."""
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        raise DeployError("exec: no command; such as `exec -- darkroom-host status`")
    remote = Remote(Aws(_session(given), given.name))
    instance = remote.instance()
    if given.host:  # any other instance of the account is none of ours
        instance = next((it for it in [*remote.workers(), instance] if it and it.id == given.host), None)
        if instance is None:
            raise DeployError(f"--host {given.host}: {given.name} has no such host, see `status`")
    if instance is None:
        raise DeployError(f"{given.name} has no host: run `up` first, or see `status`")
    try:
        done = remote.run(instance.id, command, stop_if_interrupted=True)
    except HostNotReachable as error:
        raise DeployError(str(error)) from None
    sys.stdout.write(done.output)
    sys.stderr.write(done.errors)
    if max(len(done.output), len(done.errors)) >= OUTPUT_CHARACTERS_MAX:
        _say(f"the output is cut: SSM keeps {OUTPUT_CHARACTERS_MAX} characters")
    return done.exit_code


def _down(given: argparse.Namespace) -> int:
    if given.yes is not None and not given.delete_data:
        raise DeployError("--yes is for --delete-data")
    aws = Aws(_session(given), given.name)
    if given.delete_data and (given.yes or _typed_name(given.name)) != given.name:
        raise DeployError(f"that is not {given.name}: nothing is deleted")
    print("\n".join(down(aws, delete_data=given.delete_data, say=_say)))
    return 0


def _typed_name(name: str) -> str:
    try:
        return input(f"This deletes all jobs, results and keys of {name}. Type its name: ").strip()
    except EOFError:
        raise DeployError("nobody typed the name: pass --yes NAME in a script") from None


def _session(given: argparse.Namespace) -> boto3.Session:
    choices.check_name(given.name)
    try:
        # boto3 does not read AWS_REGION, the AWS command line does.
        return boto3.Session(region_name=given.region or os.environ.get("AWS_REGION") or None)
    except ProfileNotFound as error:
        raise DeployError(f"{error}: see `aws configure list-profiles`") from None


def _say(line: str) -> None:
    print(f"darkroom ec2: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=choices.NAME, help="of the deployment (%(default)s)")
    common.add_argument("--region", help="AWS region (that of the AWS command line)")
    parser = argparse.ArgumentParser(prog="python -m deploy.ec2", description="Darkroom on EC2: docs/EC2.md")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    it = commands.add_parser("push", parents=[common], help="build the images of this commit, and push them to ECR")
    it.add_argument("--arch", default="amd64", choices=("amd64", "arm64"), help="of the host (%(default)s)")
    it.add_argument("--gpu", action="store_true", help="with the CUDA build of torch")
    it.set_defaults(run=_push)

    it = commands.add_parser("up", parents=[common], help="start the host or change it, and wait until it classifies")
    it.add_argument("--cidr", required=True, metavar="RANGE", help="the addresses that may connect, 203.0.113.7/32")
    it.add_argument("--type", default="", help=f"instance type ({choices.CPU_TYPE}; {choices.GPU_TYPE} with --gpu)")
    it.add_argument("--gpu", action="store_true", help="classify on the type's NVIDIA GPU")
    it.add_argument("--spot", action="store_true", help="cheaper; AWS may replace the host at any time")
    it.add_argument("--domain", default="", help="serve https://DOMAIN instead of http on port 5000")
    it.add_argument("--key-name", default="", help="open port 22 for this EC2 key pair")
    it.add_argument("--subnet", default="", help="instead of a default subnet")
    it.add_argument("--s3-bucket", default="", help="jobs may name images in this bucket")
    it.add_argument(
        "--workers", type=int, default=0, metavar="N", help="further hosts with workers alone (%(default)s)"
    )
    it.add_argument("--worker-type", default="", help="their instance type (that of the host)")
    it.add_argument("--env-file", type=Path, metavar="FILE", help="settings, NAME=VALUE lines")
    it.add_argument("--new-ami", action="store_true", help="take the newest system image, which replaces the host")
    it.add_argument("--dry-run", action="store_true", help="show resources and costs, and make nothing")
    it.add_argument(
        "--wait-seconds",
        type=_seconds,
        default=choices.READY_SECONDS_MAX,
        help="until it classifies (%(default)s)",
    )
    it.set_defaults(run=_up)

    it = commands.add_parser("status", parents=[common], help="show what is there; exit 0 if it classifies")
    it.set_defaults(run=_status)

    it = commands.add_parser("exec", parents=[common], help="run a command on the host: exec -- COMMAND")
    it.add_argument("--host", default="", metavar="ID", help="instance of a worker host, in place of the first host")
    it.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    it.set_defaults(run=_exec)

    it = commands.add_parser("down", parents=[common], help="end all that costs money but the data volume and images")
    it.add_argument("--delete-data", action="store_true", help="also the data, the secrets and the images")
    it.add_argument("--yes", metavar="NAME", help="instead of typing the name")
    it.set_defaults(run=_down)
    return parser


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) <= choices.WAIT_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"more than 0 and at most {choices.WAIT_SECONDS_MAX}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
