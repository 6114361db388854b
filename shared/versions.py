"""Which packages stand behind a service."""

import functools
from importlib.metadata import PackageNotFoundError, version


@functools.cache
def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
