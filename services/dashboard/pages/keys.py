"""API keys."""

from flask import Blueprint

blueprint = Blueprint("key_pages", __name__, url_prefix="/keys")
