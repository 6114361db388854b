"""Who may in: an API key, or a session from a one-time sign-in link; and nginx's question about the other services."""

import threading
import time
from urllib.parse import urlsplit

from flask import Blueprint, Response, g, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from services.dashboard import metrics
from services.dashboard.context import store
from services.dashboard.errors import answer
from shared import auth

OPEN = ("auth.health", "auth.ask", "auth.sign_in", "static")
SAFE = ("GET", "HEAD", "OPTIONS")
SLOWED = 0.3  # seconds that a wrong key or token costs
SLOWED_AT_ONCE = 8  # more are refused without waiting, or they would take all threads; nginx bounds their number
NO_ONE = (
    "You are not signed in. A browser signs in with the link that Tandem prints when it starts; "
    "a program sends `Authorization: Bearer tdm_…`."
)
ELSEWHERE = "This request comes from another site, so the session does not count for it. Use an API key."

blueprint = Blueprint("auth", __name__)
_slowed = threading.BoundedSemaphore(SLOWED_AT_ONCE)


def guard() -> Response | None:
    """Before every request: None to let it pass, else the refusal."""
    if request.endpoint in OPEN or (request.endpoint == "metrics.metrics" and metrics.from_inside()):
        return None
    return _refusal(request.method)


@blueprint.get("/health")
def health() -> dict[str, str]:
    """The process answers; what it depends on is in /api/system."""
    return {"status": "ok"}


@blueprint.get("/auth")
def ask() -> Response:
    """nginx's auth_request for /v1 and /gguf: 204, or 401 or 403. `X-Original-Method` is the method of the request itself."""
    return _refusal(request.headers.get("X-Original-Method", "GET")) or Response(status=204)


@blueprint.get("/sign-in")
def sign_in() -> AnyResponse | tuple[str, int]:
    """Exchange a one-time token for a session."""
    token = request.args.get("token")
    if token is None:
        return redirect("/") if session.get("in") else (render_template("sign_in.html", failed=False), 200)
    if not auth.use_sign_in(store(), token.strip()):
        _slow()
        return render_template("sign_in.html", failed=True), 401
    session.clear()
    session["in"] = True
    session.permanent = True
    return redirect("/", 303)


@blueprint.post("/sign-out")
def sign_out() -> AnyResponse:
    session.clear()
    return redirect("/sign-in", 303)


def _refusal(method: str) -> Response | None:
    """None if whoever asks may; notes in `g.who` who it is."""
    header = request.headers.get("Authorization", "")
    if header:
        key = auth.check_key(store(), header.removeprefix("Bearer ").strip())
        if key:
            g.who = f"key {key['id']}"
            return None
        _slow()
        response = answer(
            401, "unauthorized", "This API key is not known; it may have been revoked. Make one under Keys."
        )
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    if not session.get("in"):
        response = answer(401, "unauthorized", NO_ONE)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    g.who = "session"
    return None if method in SAFE or _same_origin() else answer(403, "unauthorized", ELSEWHERE)


def _slow() -> None:
    if _slowed.acquire(blocking=False):
        time.sleep(SLOWED)
        _slowed.release()


def _same_origin() -> bool:
    """Whether the browser says that the request comes from a page of this site (or from none, as a typed address)."""
    site = request.headers.get("Sec-Fetch-Site")
    if site:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return bool(origin) and urlsplit(origin).netloc == request.host
