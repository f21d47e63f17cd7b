"""The repositories in ECR."""

import base64
import json
from contextlib import suppress
from typing import Any, NamedTuple

import boto3

IMAGES_KEPT = 20
_TAGS = [{"Key": "darkroom", "Value": "images"}]
"""Of every repository that `push` has made: `delete_all` leaves others alone."""
_LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": f"the newest {IMAGES_KEPT}",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": IMAGES_KEPT},
            "action": {"type": "expire"},
        }
    ]
}


class Login(NamedTuple):
    registry: str
    """Its host name."""
    password: str
    """Of the user `AWS`, for 12 hours."""


class Registry:
    """Errors of AWS pass through as botocore's."""

    def __init__(self, session: boto3.Session) -> None:
        self._ecr: Any = session.client("ecr")

    def login(self) -> Login:
        (data,) = self._ecr.get_authorization_token()["authorizationData"]
        _, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return Login(data["proxyEndpoint"].removeprefix("https://"), password)

    def make(self, repository: str) -> None:
        """Make a repository, or set an existing one to the same: scan on push, immutable tags, the newest kept."""
        with suppress(self._ecr.exceptions.RepositoryAlreadyExistsException):
            self._ecr.create_repository(repositoryName=repository, tags=_TAGS)
        self._ecr.put_image_tag_mutability(repositoryName=repository, imageTagMutability="IMMUTABLE")
        self._ecr.put_image_scanning_configuration(
            repositoryName=repository, imageScanningConfiguration={"scanOnPush": True}
        )
        self._ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=json.dumps(_LIFECYCLE))

    def has(self, repository: str, tag: str) -> bool:
        try:
            self._ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
        except (
            self._ecr.exceptions.ImageNotFoundException,
            self._ecr.exceptions.RepositoryNotFoundException,
        ):
            return False
        return True

    def tags(self, repository: str, *, account: str) -> list[str]:
        """Of all images, the newest first; empty without the repository."""
        pages = self._ecr.get_paginator("describe_images").paginate(registryId=account, repositoryName=repository)
        try:
            images = [image for page in pages for image in page["imageDetails"]]
        except self._ecr.exceptions.RepositoryNotFoundException:
            return []
        images.sort(key=lambda image: image["imagePushedAt"], reverse=True)
        return [tag for image in images for tag in image.get("imageTags", [])]

    def delete_all(self) -> list[str]:
        """Delete the repositories that `make` has made, with their images. Returns their names."""
        pages = self._ecr.get_paginator("describe_repositories").paginate()
        names = []
        for repository in (it for page in pages for it in page["repositories"]):
            if self._ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"] == _TAGS:
                self._ecr.delete_repository(repositoryName=repository["repositoryName"], force=True)
                names.append(repository["repositoryName"])
        return names
