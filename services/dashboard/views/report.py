"""What a bug report needs, as text: versions, services, the machine and the settings, without secrets."""

from collections.abc import Iterator
from typing import Any

from services.dashboard.filters import size


def text(
    system: dict[str, Any], packages: dict[str, dict[str, str]], settings: list[dict[str, Any]], machine: str
) -> str:
    """The report; `system` is the answer of /api/system, `packages` the versions by service."""
    return "\n".join(_lines(system, packages, settings, machine)) + "\n"


def _lines(
    system: dict[str, Any], packages: dict[str, dict[str, str]], settings: list[dict[str, Any]], machine: str
) -> Iterator[str]:
    yield f"Tandem on {machine}"
    for service, found in packages.items():
        yield f"{service}: " + ", ".join(f"{name} {version}" for name, version in found.items())
    yield ""
    for name, service in system["services"].items():
        yield f"{name}: {service['state']}, {service['detail']}"
    yield f"base model: {system['base_model']}, {'in' if system['base_model_cached'] else 'not in'} the cache"
    yield f"disk: {size(system['disk']['free'])} free of {size(system['disk']['total'])}"
    for gpu in system["gpus"]:
        yield f"GPU: {gpu['name']}, {size(gpu.get('memory_total'))}, seen by {' and '.join(gpu['held_by'])}"
    if not system["gpus"]:
        yield "GPU: none"
    yield ""
    for setting in settings:
        yield f"{setting['variable']}={setting['value']}"
