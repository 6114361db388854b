"""The pages, one module each. They read the data directory themselves; what they change, they change through the API."""

from services.dashboard.pages import (
    adapters,
    chat,
    datasets,
    exports,
    home,
    keys,
    new_run,
    queue,
    runs,
    speed,
    sweeps,
    system,
)

PAGES = (home, chat, datasets, runs, new_run, sweeps, speed, adapters, exports, queue, system, keys)
BLUEPRINTS = tuple(
    dict.fromkeys(page.blueprint for page in PAGES)
)  # `new_run`, `sweeps` and `speed` add to that of `runs`
