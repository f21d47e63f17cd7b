"""`/predict`: the book's synchronous call, answered through the same queue."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import DirectRoute
from api.asgi.responses import json_response
from api.auth import Calls, Owner
from api.errors import UnclassifiableImage, WaitTimeout
from api.results.completion import wait_for
from api.submissions.submit import Order
from jobs.errors import StoreUnavailable
from jobs.ids import to_text
from jobs.records import Failure, Lane
from jobs.store.notices import apply_notice

router = APIRouter(tags=["the book's call"], route_class=DirectRoute)


@router.post(
    "/predict",
    summary="Classify one image and wait",
    response_model=schemas.BookPrediction,
    responses=schemas.responses(
        401,
        408,
        413,
        415,
        429,
        504,
        also={**schemas.SUBMIT_PROBLEMS, 422: "`bad_image` with the image's `item_code`, or `invalid_request`"},
    ),
    openapi_extra=schemas.PREDICT_UPLOAD,
)
async def predict(request: Request, owner: Owner, calls: Calls) -> Response:
    """Multipart with the image in the field `file`."""
    job_id = await calls.intake.new_id(owner)
    with calls.completions.subscribe(job_id, expected=True) as ended:
        order = Order(owner, lane=Lane.INTERACTIVE, top_k=1, field="file")
        job = (await calls.intake.submit(request, order, job_id)).job
        calls.completions.accepted(job_id)
        told = await wait_for(ended, calls.settings.predict_wait_seconds, request.receive)
    try:
        if not apply_notice(job, told):
            job = await calls.store.get(job_id, owner)
    except StoreUnavailable:
        raise StoreUnavailable(
            "The image was accepted, but its result cannot be read now.", job_id=to_text(job_id)
        ) from None
    if job.single_item is None or job.single_item.outcome is None:
        await calls.store.cancel(job_id, owner)  # nobody will ask for it again
        raise WaitTimeout
    if isinstance(job.single_item.outcome, Failure):
        raise UnclassifiableImage(job.single_item.outcome.detail, item_code=job.single_item.outcome.code)
    view = await calls.presenter.item(job.single_item)
    return json_response({"class": view["class"], "confidence": f"{view['confidence']:.4f}"})
