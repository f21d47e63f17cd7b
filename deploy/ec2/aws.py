"""The AWS clients of one command, their errors as one line each, and waiting for AWS with a deadline."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

from deploy.ec2.errors import DeployError

TAG = "darkroom"
"""Key of the tag that every resource of a deployment has; its value is the deployment's name."""
WORKERS_TAG = "darkroom-workers"
"""Key of another tag, of hosts with workers alone: by the first one alone they would pass for the deployment's host."""

CONNECT_SECONDS_MAX = 10
READ_SECONDS_MAX = 30
TRIES_MAX = 5
POLL_SECONDS = 3.0

_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS_MAX,
    read_timeout=READ_SECONDS_MAX,
    retries={"mode": "standard", "total_max_attempts": TRIES_MAX},
)
_NO_CREDENTIALS = "no AWS credentials: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_REFUSED = frozenset({"AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"})
_FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


class Aws:
    """The clients that `up`, `status`, `exec` and `down` share, for one region and one deployment."""

    def __init__(self, session: boto3.Session, name: str) -> None:
        if session.region_name is None:
            raise DeployError("no AWS region: pass --region, or set AWS_REGION")
        self.session = session
        self.name = name
        self.region: str = session.region_name

    def _client(self, service: str) -> Any:
        return self.session.client(service, config=_CONFIG)

    @cached_property
    def autoscaling(self) -> Any:
        return self._client("autoscaling")

    @cached_property
    def cloudformation(self) -> Any:
        return self._client("cloudformation")

    @cached_property
    def ec2(self) -> Any:
        return self._client("ec2")

    @cached_property
    def quotas(self) -> Any:
        return self._client("service-quotas")

    @cached_property
    def ssm(self) -> Any:
        return self._client("ssm")

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": TAG, "Value": self.name}]

    @property
    def tagged(self) -> list[dict[str, Any]]:
        """A filter for what belongs to this deployment."""
        return [{"Name": f"tag:{TAG}", "Values": [self.name]}]

    def account(self) -> str:
        """The account's number; the first call of each command, which shows whether the credentials are good."""
        account: str = self._client("sts").get_caller_identity()["Account"]
        return account


def has_credentials(session: boto3.Session) -> bool:
    return session.get_credentials() is not None


def code_of(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what boto3 raises into DeployError, with what to do about it where that is known."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise DeployError(_NO_CREDENTIALS) from None
    except NoRegionError:
        raise DeployError("no AWS region: pass --region, or set AWS_REGION") from None
    except ClientError as error:
        raise DeployError(_line(error)) from error
    except BotoCoreError as error:
        raise DeployError(f"AWS: {' '.join(str(error).split())}") from error


def _line(error: ClientError) -> str:
    code, text = code_of(error), " ".join(str(error.response.get("Error", {}).get("Message", "")).split())
    if code in _EXPIRED:
        return "the AWS credentials have expired: run `aws sso login`, or get new ones"
    if code in _REFUSED:
        return f"AWS does not accept the credentials ({code})"
    if code in _FORBIDDEN:
        return f"the AWS credentials may not call {error.operation_name}: {text}"
    return f"AWS refused {error.operation_name}: {text or code} ({code})"


class Deadline:
    def __init__(self, seconds_max: float, problem: str) -> None:
        """`problem` is what is wrong if the time ends, and what to do."""
        self._ends = time.monotonic() + seconds_max
        self._seconds_max = seconds_max
        self.problem = problem

    def wait(self) -> None:
        """Sleep for a moment. Raises `DeployError` once the time is over."""
        if time.monotonic() >= self._ends:
            raise DeployError(f"waited {self._seconds_max:.0f} s: {self.problem}")
        time.sleep(POLL_SECONDS)
