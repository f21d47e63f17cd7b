"""An S3 on 127.0.0.1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer


class S3:
    def __init__(self, endpoint: str) -> None:
        self.settings: dict[str, Any] = {
            "s3_endpoint_url": endpoint,
            "s3_allow_http": True,
            "s3_buckets": ["*"],
            "s3_access_key_id": "key",
            "s3_secret_access_key": "secret",
        }
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def environment(self, uploads_url: str) -> dict[str, str]:
        """Settings of services whose large uploads wait here."""
        found = {name.upper(): str(value) for name, value in self.settings.items() if name != "s3_buckets"}
        return {"UPLOADS_URL": uploads_url, **found}

    def bucket(self, name: str, **objects: bytes) -> None:
        self._client.create_bucket(Bucket=name)
        self.put(name, objects)

    def put(self, name: str, objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            self._client.put_object(Bucket=name, Key=key, Body=body)

    def keys(self, bucket: str) -> list[str]:
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def deny(self, bucket: str, action: str, prefix: str) -> None:
        """Let nobody do this below the prefix, for example `s3:PutObject`."""
        rule = {"Effect": "Deny", "Principal": "*", "Action": [action], "Resource": f"arn:aws:s3:::{bucket}/{prefix}*"}
        policy = {"Version": "2012-10-17", "Statement": [rule]}
        self._client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


class MotoS3(S3):
    """moto's server, which can be stopped for a while."""

    def __init__(self) -> None:
        self._server = _serve(port=0)
        host, self._port = self._server.get_host_and_port()
        super().__init__(f"http://{host}:{self._port}")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections; the objects are there again afterwards."""
        self.stop()
        try:
            yield
        finally:
            self._server = _serve(port=self._port)

    def stop(self) -> None:
        self._server.stop()


def _serve(port: int) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


@contextmanager
def serving_s3() -> Iterator[MotoS3]:
    s3 = MotoS3()
    try:
        # moto does not delete its buckets when a server ends
        httpx.post(f"{s3.settings['s3_endpoint_url']}/moto-api/reset").raise_for_status()
        yield s3
    finally:
        s3.stop()
