"""The queue: Celery's settings, each with its reason, the names of the tasks, and how a job is submitted."""

import json
from typing import Any, get_args

import redis
from celery import Celery
from celery.result import denied_join_result
from kombu.exceptions import OperationalError

from shared import cache, recipes, registry, runs, speed
from shared.recipes import RecipeError
from shared.schemas import NOT_SERVED, Job, Kind, Recipe, RunSpec
from shared.settings import Settings
from shared.store import Store, check_name, free_bytes

KINDS: tuple[Kind, ...] = get_args(Kind)


class QueueUnreachable(ConnectionError):
    """Redis does not answer. What was queued is on disk and is sent again when it does; `details` names the run."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.details = [run_id]


class JobRefused(ValueError):
    """A job that cannot work; the message says why."""


def celery_app(settings: Settings) -> Celery:
    """The Celery application that clients and workers share."""
    app = Celery("tandem", broker=settings.redis_url, backend=settings.redis_url)
    app.conf.update(
        task_default_queue=settings.queue,
        # A message is acknowledged before the run starts: redelivery would start a long run twice
        # (https://github.com/celery/celery/issues/5935). What a dead worker leaves behind, `recover` finds on disk.
        task_acks_late=False,
        # A message that waits for the worker must stay in Redis: reserved ones are redelivered after the visibility timeout.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        task_track_started=True,
        result_expires=30 * 24 * 3600,
        result_extended=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_connect_timeout": 3, "socket_timeout": 30, "max_retries": 1},
        redis_socket_connect_timeout=3,
        redis_backend_health_check_interval=10,
        worker_hijack_root_logger=False,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
    )
    return app


def prepare(settings: Settings, store: Store, kind: Kind, job: Job) -> tuple[Job, Recipe | None]:
    """Check a job and resolve what it names: the newest version of a data set, an alias, a recipe with its overrides.

    Raises JobRefused, RecipeError, NotFound or BadName with a sentence for the person who asked."""
    if free_bytes(store.root) < settings.min_free_bytes:
        raise JobRefused(
            f"Only {free_bytes(store.root) >> 20} MiB are free under {store.root}; a run needs at least "
            f"{settings.min_free_bytes >> 20} MiB. Delete exports or checkpoints that are not needed."
        )
    needs = {"train": "dataset", "evaluate": "adapter", "export": "adapter", "fetch": "repository"}
    if kind in needs and not getattr(job, needs[kind]):
        raise JobRefused(f"A job of the kind {kind!r} needs {needs[kind]!r}.")
    if job.action != "fetch":
        _check_action(settings, store, kind, job)
    changes: dict[str, Any] = {}
    if job.dataset:
        changes["dataset"] = registry.dataset_reference(store, job.dataset)
    if job.adapter:
        target = registry.resolve(store, job.adapter, settings.base_model)
        if target.kind != "adapter":
            raise JobRefused(f"{job.adapter!r} is not an adapter; {kind} needs one, as name@version or an alias.")
        changes["adapter"] = target.name
    if kind == "train":
        name = job.name or str(changes["dataset"]).partition("@")[0]
        kind_of = registry.dataset_card(store, str(changes["dataset"]))["kind"]
        changes |= {"name": check_name(name, "adapter"), "recipe": job.recipe or recipes.FOR_KIND[kind_of]}
    if kind == "benchmark":
        changes |= _benchmark(settings, store, job)
    if kind == "export":
        changes["encoding"] = job.encoding or "MXFP4"
    if kind == "evaluate" and not job.dataset:
        changes["dataset"] = registry.adapter_card(store, changes["adapter"]).dataset
    job = job.model_copy(update=changes)
    if kind == "evaluate":
        _check_kind(store, job, registry.adapter_card(store, str(job.adapter)).values, str(job.adapter))
    if kind != "train":
        if job.recipe or job.overrides:
            raise RecipeError(f"A job of the kind {kind!r} takes no recipe.")
        return job, None
    recipe = recipes.resolve(str(job.recipe), job.overrides)
    if recipe.base_model == "default":
        recipe = recipe.model_copy(update={"base_model": settings.base_model})
    _check_kind(store, job, recipe, f"The recipe {job.recipe}")
    return job, recipe


def _benchmark(settings: Settings, store: Store, job: Job) -> dict[str, Any]:
    """What a benchmark asks, each model by its own name and once. Raises NotFound, or JobRefused for what cannot answer."""
    asked = [registry.resolve(store, name, settings.base_model) for name in job.models or speed.usual(settings, store)]
    for target in asked:
        if target.kind == "export" and (card := registry.export_card(store, target.name)).encoding in NOT_SERVED:
            raise JobRefused(f"{card.file} ({card.encoding}) is not served here. Measure its adapter {card.adapter}.")
    tokens, prompt_tokens = job.tokens or speed.TOKENS, job.prompt_tokens or speed.PROMPT_TOKENS
    if tokens + prompt_tokens > settings.context_tokens:
        raise JobRefused(
            f"{prompt_tokens:,} tokens of prompt and {tokens:,} of answer are more than the {settings.context_tokens:,} that "
            "the servers take (TANDEM_CONTEXT_TOKENS). Ask for fewer."
        )
    return {
        "models": list(dict.fromkeys(target.name for target in asked)),
        "concurrency": sorted(set(job.concurrency or speed.CONCURRENCY)),
        "tokens": tokens,
        "prompt_tokens": prompt_tokens,
    }


def _check_kind(store: Store, job: Job, recipe: Recipe, who: str) -> None:
    """Refuse a data set whose rows the method cannot learn from; `who` begins the sentence."""
    found, wanted = registry.dataset_card(store, str(job.dataset))["kind"], recipes.LEARNS_FROM[recipe.method]
    if found == wanted:
        return
    fitting = [name for name in recipes.names() if recipes.LEARNS_FROM[recipes.resolve(name).method] == found]
    other = f", or the recipe {' or '.join(fitting)} for this one" if job.recipe else ""
    raise JobRefused(
        f"{who} learns from {wanted} by the method {recipe.method}, and the data set {job.dataset} is of {found}. "
        f"Take a data set of {wanted}{other}."
    )


def _check_action(settings: Settings, store: Store, kind: Kind, job: Job) -> None:
    """Refuse to check, repair or remove what is not in the cache, and to remove what something needs."""
    if kind != "fetch":
        raise JobRefused(f"A job of the kind {kind!r} takes no action; fetch takes one.")
    if not cache.folder_of(settings.hf_home, str(job.repository), job.repository_type).is_dir():
        raise JobRefused(f"{job.repository} is not in the Hugging Face cache, so there is nothing to {job.action}.")
    removes = job.action == "remove" and job.repository_type == "model"
    if removes and (why := cache.needed(settings, store).get(str(job.repository))):
        raise JobRefused(f"{job.repository} stays in the cache: {why}.")


def submit(
    settings: Settings,
    app: Celery,
    kind: Kind,
    job: Job,
    cloned_from: str | None = None,
    request_id: str | None = None,
) -> RunSpec:
    """Write the run's directory, then send its message: as any Celery client would, with the run's id as the task's.

    Raises what `prepare` raises, and QueueUnreachable once the run is on disk."""
    store = Store(settings.data)
    job, recipe = prepare(settings, store, kind, job)
    spec = runs.create(store, runs.new_id(kind), kind, job, recipe, cloned_from, request_id)
    send(app, spec, attempt=1)
    return spec


def send(app: Celery, spec: RunSpec, attempt: int) -> None:
    """Send the message for an attempt of a run. Raises QueueUnreachable."""
    kwargs = spec.job.model_dump(exclude_defaults=True)
    if attempt > 1:
        kwargs |= {"run_id": spec.id, "attempt": attempt}
    try:
        # Nobody here waits for the result: without this, Celery subscribes to it, and retries for 20 s when Redis is away.
        with denied_join_result():
            app.send_task(f"tandem.{spec.kind}", kwargs=kwargs, task_id=task_id(spec.id, attempt), retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        message = f"The queue does not answer ({error}). The job is kept and is sent when it is back."
        raise QueueUnreachable(message, spec.id) from error


def task_id(run_id: str, attempt: int) -> str:
    """The id of an attempt's message: the run's own, then one for each attempt, as a worker drops an id ever revoked."""
    return run_id if attempt == 1 else f"{run_id}.{attempt}"


def order(settings: Settings, store: Store) -> list[str]:
    """The queued runs in the order in which they will start. Those whose message is lost come last: they are sent again."""
    queued = [run_id for run_id, _ in reversed(runs.in_state(store, "queued"))]
    try:
        with connect(settings) as client:
            sent = [_run_of(raw) for raw in reversed(client.lrange(settings.queue, 0, -1))]
    except redis.RedisError:
        sent = []
    place = {run_id: number for number, run_id in enumerate(sent)}
    return sorted(queued, key=lambda run_id: place.get(run_id, len(sent)))


def move(settings: Settings, store: Store, run_id: str, to: int) -> None:
    """Put a queued run at place `to` of the queue, 1 being the next to start.

    Raises RunConflict when its message waits no longer, QueueUnreachable when Redis does not answer."""
    try:
        with connect(settings) as client:
            client.transaction(lambda pipe: _reorder(pipe, settings.queue, run_id, to), settings.queue)
    except redis.RedisError as error:
        raise QueueUnreachable(f"The queue does not answer ({error}), so nothing was moved.", run_id) from error


def _reorder(pipe: Any, queue: str, run_id: str, to: int) -> None:
    messages = pipe.lrange(queue, 0, -1)[::-1]  # the next to start is the last of the list
    mine = [raw for raw in messages if _run_of(raw) == run_id]
    if not mine:
        raise runs.RunConflict(
            f"Run {run_id} does not wait any more: it has started, or its message is being sent again."
        )
    others = [raw for raw in messages if raw not in mine]
    others[max(to - 1, 0) : max(to - 1, 0)] = mine
    pipe.multi()
    pipe.delete(queue)
    pipe.rpush(queue, *others[::-1])


def _run_of(raw: bytes) -> str | None:
    """The run that a message of the broker is about: its task's id, without the attempt."""
    try:
        return str(json.loads(raw)["headers"]["id"]).partition(".")[0]
    except (ValueError, LookupError, TypeError):
        return None


def connect(settings: Settings) -> redis.Redis:
    """Redis itself, for what Celery has no word for; it gives up within seconds."""
    return redis.Redis.from_url(settings.redis_url, socket_connect_timeout=1, socket_timeout=2)


def waiting(settings: Settings) -> int | None:
    """How many messages wait in Redis; None if it does not answer."""
    try:
        with connect(settings) as client:
            return int(client.llen(settings.queue))
    except redis.RedisError:
        return None
