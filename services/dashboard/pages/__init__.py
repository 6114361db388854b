"""The pages, one module each. They read the data directory themselves; what they change, they change through the API."""

from services.dashboard.pages import adapters, chat, datasets, exports, home, keys, new_run, queue, runs, sweeps, system

PAGES = (home, chat, datasets, runs, new_run, sweeps, adapters, exports, queue, system, keys)
BLUEPRINTS = tuple(dict.fromkeys(page.blueprint for page in PAGES))  # `new_run` and `sweeps` add to that of `runs`
