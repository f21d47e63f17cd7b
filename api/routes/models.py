"""`/v1/models`: the models, their versions, and how many workers serve them now."""

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.errors import ModelNotFound
from api.presenters import model_view
from api.routes.parameters import AppServices, Owner
from api.services import Services
from jobs.model_manifest import ModelCard, name_of
from jobs.settings import ModelRef

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=EndpointRoute)


@router.get(
    "", summary="Every version of every model", response_model=schemas.ModelList, responses=schemas.responses(401, 503)
)
async def list_models(_: Owner, services: AppServices) -> Response:
    return json_response(
        {"models": await _views(services, await services.model_registry.cards()), "faults": await _faults(services)}
    )


@router.get(
    "/{name}",
    summary="The versions of one model, or one of them",
    response_model=schemas.ModelList,
    responses=schemas.responses(401, 503, also={404: "`model_not_found`", 422: "`invalid_request`"}),
)
async def get_model(
    _: Owner, name: Annotated[ModelRef, Path(description="The model's name, or name@version.")], services: AppServices
) -> Response:
    views = await _views(
        services, [card for card in await services.model_registry.cards() if card.name == name_of(name)]
    )
    models = [view for view in views if name in (view["name"], view["id"])]
    faults = [fault for fault in await _faults(services) if name in (fault["model"], name_of(fault["model"]))]
    if not models and not faults:
        raise ModelNotFound
    return json_response({"models": models, "faults": faults})


async def _faults(services: Services) -> list[dict[str, Any]]:
    workers = Counter((it.model, it.reason) for it in await services.model_registry.load_errors())
    return [{"model": model, "detail": why, "workers": count} for (model, why), count in sorted(workers.items())]


async def _views(services: Services, cards: list[ModelCard]) -> list[dict[str, Any]]:
    """The resources of model versions. `cards` has all versions of its models, the newest last."""
    serving = {name: await services.model_registry.ready_processes(name) for name in {card.name for card in cards}}
    paces = await services.model_registry.paces()
    default = {card.name: card.ref for card in cards}
    default |= {card.name: card.ref for card in cards if any(it.ref == card.ref for it in serving[card.name])}
    return [
        model_view(
            card,
            [it for it in serving[card.name] if it.ref == card.ref],
            paces.get(card.ref, []),
            default=default[card.name] == card.ref,
        )
        for card in cards
    ]
