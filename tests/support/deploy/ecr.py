"""ECR on this machine: moto's API, and Debian's docker-registry under ECR's own host name, on port 443 with TLS."""

import base64
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

from tests.support.processes import Process
from tests.support.waiting import wait_until

REGION = "eu-central-1"
HOSTS = Path("/etc/hosts")
CERTIFICATES_NAME = "/etc/docker/certs.d"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": REGION}


def reason_to_skip() -> str:
    """Empty if this machine can serve as the registry."""
    if shutil.which("docker-registry") is None or shutil.which("openssl") is None:
        return "Debian's docker-registry or openssl is not installed"
    return "" if os.geteuid() == 0 else "port 443 and /etc/hosts are root's"


class Ecr:
    """`session` speaks to moto, and images are pushed to `host`, as user AWS with the token that moto gives."""

    def __init__(self, folder: Path, moto_port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{moto_port}"
        self.moto_port = moto_port
        self.session = _Session(self.endpoint)
        self.client: Any = self.session.client("ecr")
        (data,) = self.client.get_authorization_token()["authorizationData"]
        self.host = str(data["proxyEndpoint"]).removeprefix("https://")
        self.user, _, self.password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        self.authority = folder / "ca.pem"
        self._folder = folder
        self._http = httpx.Client(base_url="https://127.0.0.1", auth=(self.user, self.password), verify=False)

    def tags(self, repository: str) -> list[str]:
        """What was really pushed."""
        answer = self._http.get(f"/v2/{repository}/tags/list")
        return sorted(answer.json()["tags"] or []) if answer.status_code == 200 else []

    def repositories(self) -> list[str]:
        found: list[str] = self._http.get("/v2/_catalog").json()["repositories"]
        return found

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Take another password meanwhile."""
        self._take("another")
        try:
            yield
        finally:
            self._take(self.password)

    def _take(self, password: str) -> None:
        (self._folder / "htpasswd").write_text(f"{self.user}:{_bcrypt(password)}\n")

    def sync(self, *repositories: str) -> None:
        """Tell moto which images were pushed, to these repositories or to all: with AWS, both are one service."""
        known = {
            (repository["repositoryName"], image.get("imageTag"))
            for repository in self.client.describe_repositories()["repositories"]
            for image in self.client.list_images(repositoryName=repository["repositoryName"])["imageIds"]
        }
        for repository in repositories or self.repositories():
            for tag in self.tags(repository):
                if (repository, tag) not in known:
                    kind = "application/vnd.docker.distribution.manifest.v2+json"
                    manifest = self._http.get(f"/v2/{repository}/manifests/{tag}", headers={"Accept": kind}).text
                    self.client.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)

    @contextmanager
    def serving(self) -> Iterator["Ecr"]:
        self._make_certificate()
        self._take(self.password)
        (self._folder / "config.yml").write_text(
            f"""version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {self._folder}/data}}}}
http: {{addr: ":443", tls: {{certificate: {self._folder}/cert.pem, key: {self._folder}/key.pem}}}}
auth: {{htpasswd: {{realm: ecr, path: {self._folder}/htpasswd}}}}
"""
        )
        trusted = Path(CERTIFICATES_NAME) / self.host
        trusted.mkdir(parents=True, exist_ok=True)  # of a run that was killed
        line = f"127.0.0.1 {self.host}\n"
        try:
            shutil.copy(self.authority, trusted / "ca.crt")
            with HOSTS.open("a") as hosts:
                hosts.write(line)
            command = ["docker-registry", "serve", str(self._folder / "config.yml")]
            with self._http, Process(command, self._folder / "registry.log") as registry:
                wait_until(lambda: self._answers(registry), what="the registry")
                yield self
        finally:
            HOSTS.write_text(HOSTS.read_text().replace(line, ""))  # in place: a container's hosts file is mounted
            shutil.rmtree(trusted)

    def _answers(self, registry: Process) -> bool:
        assert registry.running(), registry.output()
        try:
            return self._http.get("/v2/").status_code == 200
        except httpx.TransportError:
            return False

    def _make_certificate(self) -> None:
        def openssl(arguments: str) -> None:
            subprocess.run(["openssl", *arguments.split()], cwd=self._folder, capture_output=True, check=True)

        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        openssl(f"req -x509 {key} -subj /CN=tests -keyout ca.key -out ca.pem")
        openssl(f"req {key} -subj /CN=registry -keyout key.pem -out request.pem")
        (self._folder / "names").write_text(f"subjectAltName=DNS:{self.host}\n")
        openssl("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names -out cert.pem")


class _Session(boto3.Session):
    """Of moto's server, whose clients need no endpoint."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )
        self._endpoint = endpoint

    def client(self, *arguments: Any, **options: Any) -> Any:
        return super().client(*arguments, **{"endpoint_url": self._endpoint, **options})


@contextmanager
def serving_ecr(folder: Path) -> Iterator[Ecr]:
    """Moto's server on all addresses, so that containers reach it, and the registry. Both are empty."""
    server = ThreadedMotoServer(ip_address="0.0.0.0", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    try:
        httpx.post(f"http://127.0.0.1:{port}/moto-api/reset").raise_for_status()
        with Ecr(folder, port).serving() as ecr:
            yield ecr
    finally:
        server.stop()


def _bcrypt(password: str) -> str:
    """The only hash that docker-registry takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import crypt  # noqa: PLC0415  deprecated, and here until Python 3.13
    hashed = crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))
    assert re.match(r"\$2b\$", hashed), hashed
    return hashed
