"""Adapters: what was learned, where it comes from, how it compares, what points at it."""

from flask import Blueprint

blueprint = Blueprint("adapter_pages", __name__, url_prefix="/adapters")
