"""The outbound worker's settings. Each is an environment variable of the same name in capitals."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import Field

from jobs.settings import Bytes, S3Settings, Seconds, StoreSettings, WebhookSettings


class FetchSettings(S3Settings):
    """What is fetched from others' servers, and within which limits."""

    item_bytes_max: Bytes = Field(10 << 20, description="Bytes of one image.")
    fetch_concurrency: Annotated[int, Field(ge=8, le=1024)] = Field(
        32, description="Images that one outbound process fetches at once."
    )
    fetch_seconds_max: Seconds = Field(20, description="How long one image may take, redirects and tries included.")
    fetch_connect_seconds: Seconds = Field(5, description="How long one connection may take to be made.")
    fetch_tries_max: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="Tries of one image after connections that failed, and after 429 and 5xx."
    )
    fetch_retry_seconds: Seconds = Field(0.25, description="The wait before the second try; it doubles each time.")
    fetch_redirects_max: Annotated[int, Field(ge=0, le=20)] = Field(5, description="Redirects that are followed.")
    fetch_allow_hosts: list[str] = Field(
        [], description='Host names that may have any address, as JSON: ["images.internal"].'
    )
    fetch_allow_networks: list[IPv4Network | IPv6Network] = Field(
        [], description='Networks that are spoken to though they are not public, as JSON: ["10.1.0.0/16"].'
    )


class OutboundSettings(FetchSettings, WebhookSettings, StoreSettings):
    pass
