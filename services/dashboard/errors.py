"""Every error as one JSON shape, or as a page where a browser asked: what happened, why, and the way out."""

import errno
import logging
from typing import Any

from flask import Flask, Response, g, jsonify, make_response, render_template, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from services.dashboard.api.models import Problem
from shared.datasets import DatasetError, NotCached
from shared.harmony import HarmonyError
from shared.queue import JobRefused, QueueUnreachable
from shared.recipes import RecipeError
from shared.runs import RunConflict
from shared.store import BadName, NotFound

logger = logging.getLogger("tandem.dashboard")


class Refusal(Exception):  # an answer, not a defect
    """An answer other than the one that was asked for."""

    def __init__(self, status: int, type_: str, message: str, details: list[Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.type, self.details = status, type_, details


STATUSES: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "not_found"),
    BadName: (400, "bad_request"),
    JobRefused: (400, "refused"),
    RecipeError: (400, "refused"),
    HarmonyError: (422, "refused"),
    NotCached: (409, "conflict"),
    DatasetError: (422, "refused"),
    RunConflict: (409, "conflict"),
    QueueUnreachable: (503, "queue_unreachable"),
}
HTTP_TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    405: "bad_request",
    413: "too_large",
}
SENTENCES = {
    404: "There is nothing at this address. The start page lists what there is.",
    405: "This address does not take that method. /api/openapi.json says what it takes.",
    413: "The request is larger than this address takes.",
}


def problem(*statuses: int) -> dict[int, type[BaseModel]]:
    """The errors that a route describes: those given, and those that every route may answer with."""
    return dict.fromkeys(sorted({401, 403, 422, *statuses}), Problem)


def register(app: Flask) -> None:
    for kind in STATUSES:
        app.register_error_handler(kind, _known)
    app.register_error_handler(Refusal, _refusal)
    app.register_error_handler(OSError, _system)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def answer(status: int, type_: str, message: str, details: list[Any] | None = None) -> Response:
    """The error as JSON, or as a page for a browser that is not calling the API."""
    wanted = request.accept_mimetypes.best_match(("application/json", "text/html"))
    if not request.path.startswith(("/api", "/auth", "/v1")) and wanted == "text/html":
        return make_response(render_template("error.html", status=status, message=message), status)
    error: dict[str, Any] = {"message": message, "type": type_}
    if details:
        error["details"] = details
    return make_response(jsonify({"error": error}), status)


def invalid(error: ValidationError) -> Response:
    """422 for a query, path or body that does not validate; each field is named."""
    details = [
        {"field": ".".join(map(str, e["loc"])), "message": e["msg"].removeprefix("Value error, ")}
        for e in error.errors()
    ]
    said = "; ".join(f"{d['field'] or 'the body'}: {d['message'][0].lower()}{d['message'][1:]}" for d in details)
    return answer(422, "bad_request", f"The request cannot be understood: {said}.", details)


def _known(error: Exception) -> Response:
    status, type_ = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return answer(status, type_, str(error), getattr(error, "details", None))


def _refusal(error: Refusal) -> Response:
    return answer(error.status, error.type, str(error), error.details)


def _system(error: OSError) -> Response:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return answer(
            507, "refused", "The disk is full, so nothing was kept. Delete exports or data sets that are not needed."
        )
    return _unexpected(error)


def _http(error: HTTPException) -> Response:
    if error.response is not None:  # an answer that is already made, as `invalid` is
        return error.response  # type: ignore[return-value]
    status = error.code or 500
    response = answer(
        status, HTTP_TYPES.get(status, "bad_request"), SENTENCES.get(status, error.description or error.name)
    )
    for name, value in error.get_headers():
        if name in ("Allow", "Content-Range"):
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    fields = {"request_id": g.get("request_id")}
    logger.exception("a request failed", exc_info=error, extra={"fields": fields})
    return answer(
        500, "internal", f"Something went wrong here. The dashboard's log has it under request {g.get('request_id')}."
    )
