"""The Flask application: its parts put together, and what every answer carries."""

import functools
import hashlib
import time
from datetime import timedelta
from pathlib import Path

from celery import Celery
from flask import Request, Response, request
from flask_openapi3 import Info, OpenAPI

from services.dashboard import auth, errors, filters, intake, log, metrics, pages
from services.dashboard.api.models import Problem
from services.dashboard.api.parts import PARTS
from services.dashboard.api.system import VERSION
from services.dashboard.context import NAME, Context
from services.dashboard.watch import Watch
from shared.auth import session_secret
from shared.settings import Settings
from shared.store import Store

FOLDER = Path(__file__).parent
BODY_LIMIT = 1 << 20  # of every route but uploads and chats, which set their own
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer: a form would then send `Origin: null`
}


def create_app(settings: Settings, store: Store, celery: Celery) -> OpenAPI:
    """The WSGI application over one data directory and one queue."""
    app = OpenAPI(
        __name__,
        info=Info(title="Tandem", version=VERSION, description="Fine-tune and serve gpt-oss on your own machine."),
        security_schemes={"key": {"type": "http", "scheme": "bearer", "description": "an API key, `tdm_…`"}},
        openapi_extensions={"security": [{"key": []}]},
        validation_error_callback=errors.invalid,
        validation_error_model=Problem,
        doc_ui=False,
    )
    app.extensions[NAME] = Context(settings, store, celery, Watch(settings, store))
    app.request_class = _request_class(store)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.config.update(
        SECRET_KEY=session_secret(store),
        SESSION_COOKIE_NAME="tandem",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.public_url.startswith("https:"),
        PERMANENT_SESSION_LIFETIME=timedelta(hours=settings.session_hours),
        MAX_CONTENT_LENGTH=BODY_LIMIT,
        TEMPLATES_AUTO_RELOAD=False,
    )
    for part in PARTS:
        app.register_api(part)
    app.register_blueprint(auth.blueprint)
    for blueprint in pages.BLUEPRINTS:
        app.register_blueprint(blueprint)
    filters.register(app)
    app.context_processor(lambda: {"watch": app.extensions[NAME].watch, "static": _static})
    errors.register(app)
    log.register(app)
    metrics.register(app)
    app.before_request(auth.guard)
    app.after_request(_secure)
    intake.clear_abandoned(store, time.time())
    return app


def _request_class(store: Store) -> type[Request]:
    """Requests whose multipart files go to the data directory at once: /tmp may be small, and a rename needs one disk."""

    class TandemRequest(Request):
        def _get_file_stream(self, *args: object, **kwargs: object):  # werkzeug's hook
            return intake.upload_file(store)

    return TandemRequest


@functools.cache
def _static(name: str) -> str:
    """The address of a static file with a digest of its content in it, so that a browser may keep it for good."""
    digest = hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"


def _secure(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    elif response.status_code in (200, 304):
        response.headers["Cache-Control"] = "max-age=31536000, immutable" if "v" in request.args else "no-cache"
    return response
