"""Data sets: what there is, what is inside, mixed ones."""

from flask import Blueprint

blueprint = Blueprint("dataset_pages", __name__, url_prefix="/datasets")
