"""Exports: what was made of adapters, and how to use it."""

from flask import Blueprint

blueprint = Blueprint("export_pages", __name__, url_prefix="/exports")
