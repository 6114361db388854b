"""All that the API is made of. Routes below one noun stand in several modules: `keep` adds to `rows` and that to `datasets`, `sse` to `runs`."""

from services.dashboard.api import (
    adapters,
    aliases,
    cache,
    chats,
    exports,
    keep,
    keys,
    queue,
    recipes,
    sse,
    storage,
    sweeps,
    system,
)

PARTS = (
    keep.api,
    sse.api,
    sweeps.api,
    queue.api,
    adapters.api,
    exports.api,
    aliases.api,
    chats.api,
    keys.api,
    keys.links,
    recipes.api,
    storage.api,
    cache.api,
    system.api,
)
