"""The queue: what waits, in which order."""

from flask import Blueprint

blueprint = Blueprint("queue_pages", __name__, url_prefix="/queue")
