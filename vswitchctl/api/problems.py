"""Errors as RFC 9457 problem documents: which class of ours has which HTTP status."""

from __future__ import annotations

import dataclasses
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from vswitchctl.errors import (
    Conflict,
    InvalidTopology,
    NotFound,
    RetryableError,
    UserError,
    VswitchctlError,
)
from vswitchctl.model.views import OperationView, Problem

MEDIA_TYPE = "application/problem+json"
URN = "urn:vswitchctl:problem:"

_KINDS: tuple[tuple[type[VswitchctlError], HTTPStatus, str], ...] = (
    (InvalidTopology, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-topology"),
    (NotFound, HTTPStatus.NOT_FOUND, "not-found"),
    (Conflict, HTTPStatus.CONFLICT, "conflict"),
    (UserError, HTTPStatus.BAD_REQUEST, "user-error"),
    (RetryableError, HTTPStatus.SERVICE_UNAVAILABLE, "not-ready"),
    (VswitchctlError, HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error"),
)
"""The first class that fits decides."""

_log = logging.getLogger(__name__)


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as an HTTP response of its own status."""
    return Response(
        problem.model_dump_json(), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers
    )


def problem_of(error: VswitchctlError) -> Problem:
    """Status and type by the error's class; `detail` is the message, `remedy` what to do."""
    status, kind = next((status, kind) for cls, status, kind in _KINDS if isinstance(error, cls))
    if isinstance(error, InvalidTopology):
        count = len(error.findings)
        detail = f"the document has {count} error{'s' if count != 1 else ''}; nothing of it was applied"
        findings = tuple(_finding(finding) for finding in error.findings)
    else:
        detail, findings = error.message, ()
    return Problem(
        type=URN + kind,
        title=kind.replace("-", " "),
        status=status,
        detail=detail,
        remedy=error.remedy,
        findings=findings,
    )


def operation_problem(operation: OperationView) -> Problem:
    """A failed operation, for a caller that waited for it: 502, since the host refused what we asked."""
    return Problem(
        type=URN + "operation-failed",
        title="operation failed",
        status=HTTPStatus.BAD_GATEWAY,
        detail=f"{operation.kind} of '{operation.topology}' failed with {len(operation.errors)} errors",
        remedy=f"see GET /api/v1/topologies/{operation.topology} for each entity",
        findings=tuple({"message": error} for error in operation.errors),
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(VswitchctlError, _own_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)


def _finding(finding: object) -> dict[str, Any]:
    if isinstance(finding, BaseModel):
        return finding.model_dump(mode="json")
    if dataclasses.is_dataclass(finding) and not isinstance(finding, type):
        return dataclasses.asdict(finding)
    return {"message": str(finding)}


def _own_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, VswitchctlError):
        raise error
    problem = problem_of(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request failed: %s", error, exc_info=error)
    return problem_response(problem, {"Retry-After": "1"} if error.retryable else None)


def _request_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    findings = tuple(
        {"path": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
        for item in error.errors()
    )
    return problem_response(
        Problem(
            type=URN + "invalid-request",
            title="invalid request",
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
            detail="the request does not have the shape this call takes",
            remedy="see /openapi.json",
            findings=findings,
        )
    )


def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    title = HTTPStatus(error.status_code).phrase
    detail = "" if error.detail == title else str(error.detail)
    headers = dict(error.headers) if error.headers else None
    return problem_response(Problem(title=title, status=error.status_code, detail=detail), headers)


def _defect(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this: the server logs its traceback and closes the connection.
    return problem_response(
        Problem(
            type=URN + "internal-error",
            title="internal error",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
            detail=f"{request.method} {request.url.path}: {type(error).__name__}: {error}",
            remedy="a defect of vswitchctl: the daemon's log has the traceback",
        ),
        {"Connection": "close"},
    )
