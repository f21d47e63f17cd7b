"""Which representation a client prefers (RFC 9110, 12.5): `Accept` and `Accept-Encoding`, by weight."""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers

_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE | re.ASCII)
_RANGES_MAX = 64  # of one header


def takes_gzip(headers: Headers) -> bool:
    """Whether the client accepts gzip."""
    weights = _weights(headers, "accept-encoding")
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def preferred(headers: Headers, media_types: Iterable[str]) -> str:
    """The type of the highest weight; of equal ones the more explicit, then the first. The first if none will do."""
    weights = _weights(headers, "accept")

    def rank(media_type: str) -> tuple[float, int]:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next(((weights[it], -place) for place, it in enumerate(ranges) if it in weights), (0.0, -len(ranges)))

    return max(media_types, key=rank)


def _weights(headers: Headers, name: str) -> dict[str, float]:
    """The header's values in small letters with their weights. Malformed ones are ignored."""
    found = dict[str, float]()
    for item in ",".join(headers.getlist(name)).split(",", _RANGES_MAX)[:_RANGES_MAX]:
        value, *parameters = (part.strip() for part in item.split(";"))
        weights = [_WEIGHT.fullmatch(it) for it in parameters if it[:2].lower() == "q="]
        if all(weights):
            found[value.lower()] = float(weights[0][1]) if weights and weights[0] else 1.0
    return found
