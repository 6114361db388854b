"""The pages, one module each. They read the data directory themselves; what they change, they change through the API."""

from services.dashboard.pages import adapters, chat, datasets, exports, home, keys, new_run, queue, runs, system  # noqa: F401

PAGES = (home, chat, datasets, runs, adapters, exports, queue, system, keys)
BLUEPRINTS = tuple(page.blueprint for page in PAGES)
