"""Webhooks: who may have one, and what is kept of the attempts to call it."""

from jobs.errors import InvalidRequest
from jobs.settings import WebhookSettings
from jobs.urls import is_web_url


def check_webhook(url: str, owner: str, settings: WebhookSettings) -> None:
    """Whether a job of this owner may have this webhook. Where it leads is checked when it is called.

    Raises:
        InvalidRequest: it is no URL, or there is no secret to sign with.
    """
    if not is_web_url(url):
        raise InvalidRequest("webhook_url: must be an http or https URL without credentials.")
    if owner not in settings.webhook_secrets:
        raise InvalidRequest("webhook_url: there is no secret to sign with; the operator sets WEBHOOK_SECRETS.")
