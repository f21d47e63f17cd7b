"""`/predict`: the synchronous call of the book that the project follows, through the same queue."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.errors import UnclassifiableImage, WaitTimeout
from api.routes.parameters import AppServices, Caller
from jobs.errors import StoreUnavailable
from jobs.ids import to_text
from jobs.records import Failure, Lane

router = APIRouter(tags=["the book's call"], route_class=EndpointRoute)


@router.post(
    "/predict",
    summary="Classify one image and wait",
    response_model=schemas.BookPrediction,
    responses=schemas.responses(
        401,
        403,
        408,
        413,
        415,
        429,
        504,
        also={**schemas.SUBMIT_PROBLEMS, 422: "`bad_image` with the image's `item_code`, or `invalid_request`"},
    ),
    openapi_extra=schemas.PREDICT_UPLOAD,
)
async def predict(request: Request, caller: Caller, services: AppServices) -> Response:
    """The body is multipart, with the image in the field `file`."""
    submission = await services.submissions.prepare(caller, top_k=1)
    result = await services.submissions.submit_and_wait(
        request, submission, services.settings.predict_wait_seconds, lane=Lane.INTERACTIVE, field="file"
    )
    job = result.job
    if not result.current:
        raise StoreUnavailable("The image was accepted, but its result cannot be read now.", job_id=to_text(job.id))
    if job.single_item is None or job.single_item.outcome is None:
        await services.reader.cancel(job.id, caller.owner)  # the client does not know its id
        raise WaitTimeout
    if isinstance(job.single_item.outcome, Failure):
        raise UnclassifiableImage(job.single_item.outcome.detail, item_code=job.single_item.outcome.code)
    view = await services.presenter.item(job.single_item)
    return json_response({"class": view["class"], "confidence": f"{view['confidence']:.4f}"})
