"""What a route needs of the outside: settings, the data directory, the queue, and the watch over the services."""

from dataclasses import dataclass

from celery import Celery
from flask import current_app

from services.dashboard.watch import Watch
from shared.settings import Settings
from shared.store import Store

NAME = "tandem"


@dataclass(frozen=True)
class Context:
    """Given to `create_app`, and the same for every request."""

    settings: Settings
    store: Store
    celery: Celery
    watch: Watch


def here() -> Context:
    """The context of the application that answers this request."""
    return current_app.extensions[NAME]


def store() -> Store:
    return here().store
