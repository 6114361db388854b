"""A program that knows nothing of Tandem sends its jobs as any Celery client does."""

import subprocess
import sys
import textwrap

from shared import runs
from shared.settings import Settings
from shared.store import Store
from tests.conftest import environment
from tests.integration.conftest import Worker, ended

STRANGER = """
    import sys, celery
    app = celery.Celery(broker=sys.argv[1], backend=sys.argv[1])
    app.conf.task_default_queue = sys.argv[2]
    sent = app.send_task("tandem.train", kwargs={"dataset": sys.argv[3], "recipe": "tiny", "name": "stranger",
                         "overrides": eval(sys.argv[4])})
    if sys.argv[5] == "revoke":
        import time; time.sleep(float(sys.argv[6])); sent.revoke(terminate=True)
    try:
        print(sent.get(timeout=100))
    except Exception as error:
        print(type(error).__name__, error)
    print(sent.id)
"""


def stranger(settings: Settings, dataset: str, overrides: dict, act: str = "wait", after: float = 0) -> list[str]:
    """A process that imports nothing of ours submits a job and waits for its end; the lines it prints."""
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(STRANGER),
        settings.redis_url,
        settings.queue,
        dataset,
        repr(overrides),
        act,
        str(after),
    ]
    env = {key: value for key, value in environment(settings).items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd="/", env=env, check=True)
    return done.stdout.strip().splitlines()


def test_any_celery_client_may_submit(settings: Settings, store: Store, worker: Worker, workshop: str) -> None:
    result, task_id = stranger(settings, workshop, {"steps": 3})
    assert result == "stranger@v1"
    assert runs.read_spec(store, task_id).recipe.steps == 3
    assert runs.read_status(store, task_id).state == "succeeded"


def test_a_stranger_is_told_why_a_job_is_refused(
    settings: Settings, store: Store, worker: Worker, workshop: str
) -> None:
    said, task_id = stranger(settings, workshop, {"lora_rnk": 3})
    assert "Did you mean 'lora_rank'?" in said
    assert not runs.exists(store, task_id)


def test_revoking_cancels(settings: Settings, store: Store, worker: Worker, workshop: str) -> None:
    said, task_id = stranger(settings, workshop, {"steps": 5000}, "revoke", after=8)
    assert "TaskRevokedError" in said
    assert ended(store, task_id, 30).state == "cancelled"
