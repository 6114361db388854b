"""Fetch a model or a data set into the Hugging Face cache that all services share; check, repair or remove it there.

python -m services.trainer.fetch RUN_ID
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.trainer import tiny
from services.trainer.child import Context, Refused, main
from shared import cache
from shared.cache import Broken, Repository

# The originals of gpt-oss in other formats are as large again and are never read here.
UNUSED = ["original/*", "metal/*", "*.bin", "*.pth"]


def work(context: Context) -> None:
    """Do the job's action; its result is one line that says what came of it."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's import: this child alone may use the network
    result = {"fetch": fetch, "check": check, "repair": repair, "remove": remove}[context.spec.job.action](context)
    context.event("published", name=result)


def fetch(context: Context) -> str:
    """Bring what is missing."""
    job = context.spec.job
    if job.repository == tiny.REPO_ID:  # it is on no hub
        return "@".join(tiny.build(context.settings.hf_home, context.log))
    from huggingface_hub import snapshot_download

    context.log(f"Fetching {job.repository} ({job.revision or 'main'}) from the hub.")
    with _told(f"{job.repository} could not be fetched"):
        path = snapshot_download(
            str(job.repository),
            repo_type=job.repository_type,
            revision=job.revision,
            cache_dir=context.settings.hf_home / "hub",
            ignore_patterns=UNUSED,
        )
    return f"{job.repository}@{os.path.basename(path)}"


def check(context: Context) -> str:
    """Hash every file; a warning for each that is broken."""
    read, broken = _look(context)
    for found in broken:
        context.event("warning", text=f"{found.file} {found.problem}.")
    return f"{len(broken) or 'nothing'} broken in {_files(read)}"


def repair(context: Context) -> str:
    """Bring what is broken anew. A broken file is replaced by the whole one in one step, and stays until that is there."""
    read, broken = _look(context)
    if not broken:
        return f"nothing broken in {_files(read)}"
    for found in broken:
        context.log(f"{found.file} {found.problem}.")
    if read.repository == tiny.REPO_ID:
        _rebuild(context, read.folder)
        return "built again"
    for done, found in enumerate(broken):
        context.check()
        context.progress(done, len(broken))
        _bring(context, read, found, f"Repaired {done} of {len(broken)}; nothing was removed.")
    context.progress(len(broken), len(broken))
    if left := cache.read(read.folder).broken:
        raise Refused(f"{left[0].file} {left[0].problem}, still. Repair it once more; what was brought is whole.")
    return f"{len(broken)} repaired"


def remove(context: Context) -> str:
    """Take the repository out of the cache, all of it in one step."""
    job = context.spec.job
    needed = cache.needed(context.settings, context.store) if job.repository_type == "model" else {}
    if why := needed.get(str(job.repository)):  # since it was asked for, something may have begun to need it
        raise Refused(f"{job.repository} stays in the cache: {why}.")
    found = cache.read(_folder(context))
    with context.store.staging(found.folder.parent) as trash:
        found.folder.rename(trash / found.folder.name)
    return f"{_size(found.bytes)} freed"


def _folder(context: Context) -> Path:
    job = context.spec.job
    folder = cache.folder_of(context.settings.hf_home, str(job.repository), job.repository_type)
    if not folder.is_dir():
        raise Refused(f"{job.repository} is not in the Hugging Face cache.")
    return folder


def _look(context: Context) -> tuple[Repository, list[Broken]]:
    """The repository, and what is broken of it: the quick check's findings, and those of hashing each file once."""
    read = cache.read(_folder(context))
    total, done = sum(revision.files for revision in read.revisions), 0
    context.log(f"Hashing {_files(read)} of {read.repository}.")

    def step(_: str) -> None:
        nonlocal done
        context.check()
        context.progress(done, total)
        done += 1

    known = {(found.commit, found.file): found for found in read.broken}
    for revision in read.revisions:
        for found in cache.thorough(read.folder / "snapshots" / revision.commit, step):
            known.setdefault((found.commit, found.file), found)
    context.progress(total, total)
    return read, list(known.values())


def _bring(context: Context, read: Repository, found: Broken, so_far: str) -> None:
    from huggingface_hub import hf_hub_download, snapshot_download

    hub = context.settings.hf_home / "hub"
    if found.commit is None:  # half a download, of use to nobody
        (read.folder / found.file).unlink(missing_ok=True)
        return
    context.log(f"Fetching {found.file} anew.")
    with _told(f"{found.file} is broken and could not be fetched anew. {so_far} The hub said"):
        if found.file.startswith("refs/"):
            snapshot_download(
                read.repository,
                repo_type=read.type,
                revision=found.file.removeprefix("refs/"),
                cache_dir=hub,
                ignore_patterns=UNUSED,
            )
            return
        hf_hub_download(
            read.repository, found.file, repo_type=read.type, revision=found.commit, cache_dir=hub, force_download=True
        )


def _rebuild(context: Context, folder: Path) -> None:
    """The tiny base is on no hub: build it beside the broken one, then put it in its place."""
    with context.store.staging(folder.parent) as staged:
        tiny.build(staged, context.log)
        folder.rename(staged / "broken")
        (staged / "hub" / folder.name).rename(folder)


def _files(read: Repository) -> str:
    count = sum(revision.files for revision in read.revisions)
    return f"{count} file{'s' if count != 1 else ''} ({_size(read.bytes)})"


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@contextmanager
def _told(failure: str) -> Iterator[None]:
    """Turn what the hub or the network refuses into a sentence that begins with `failure`."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, ValueError) as error:  # ValueError: a bad name, or no answer and no cache
        raise Refused(
            f"{failure}: {str(error.__cause__ or error).splitlines()[0].rstrip('.')}. "
            "Check the name, the network, and HF_TOKEN if the repository is gated."
        ) from None


if __name__ == "__main__":
    main(work)
