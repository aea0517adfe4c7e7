"""How a call that changes something answers: with its operation, at once or once it has ended."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from anyio import CapacityLimiter
from fastapi import Query, Request, Response

from vswitchctl.api.operations import wait_for_end
from vswitchctl.api.problems import operation_problem, problem_response
from vswitchctl.api.service import Service
from vswitchctl.model.views import OperationState, OperationView

WAIT_MAX = 3600.0

Wait = Annotated[
    float | None,
    Query(ge=0, le=WAIT_MAX, description="seconds to wait for the end; 202 where it is not reached"),
]
Generation = Annotated[
    int | None,
    Query(
        ge=0, description="the stored generation the caller planned against; 409 where it is another by now"
    ),
]

ACCEPTED: Final[dict[str, Any]] = {
    "response_model": OperationView,
    "status_code": HTTPStatus.ACCEPTED,
    "responses": {200: {"model": OperationView, "description": "done, where `wait` was given"}},
}
"""Of a route that answers with `answer`."""


async def answer(
    request: Request, service: Service, waiting: CapacityLimiter, operation: OperationView, wait: float | None
) -> Response:
    """The operation: 200 where it was waited for and is done, 502 where it failed, else 202."""
    view = await wait_for_end(service, waiting, operation, wait or 0.0)
    headers = {"Location": str(request.app.url_path_for("operation", operation_id=view.id))}
    if wait is not None and view.state is OperationState.FAILED:
        return problem_response(operation_problem(view), headers)
    ended = wait is not None and view.state is OperationState.DONE
    return Response(
        view.model_dump_json(),
        status_code=HTTPStatus.OK if ended else HTTPStatus.ACCEPTED,
        media_type="application/json",
        headers=headers,
    )
