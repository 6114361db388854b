"""Fetch a model or a data set from the Hugging Face hub into the cache that all services share.

python -m services.trainer.fetch RUN_ID
"""

import os

from services.trainer.child import Context, Refused, main


def fetch(context: Context) -> None:
    job = context.spec.job
    os.environ["HF_HUB_OFFLINE"] = "0"  # before the import: this child alone may use the network
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    context.log(f"Fetching {job.repository} ({job.revision or 'main'}) from the hub.")
    try:
        path = snapshot_download(
            str(job.repository),
            repo_type=job.repository_type,
            revision=job.revision,
            cache_dir=context.settings.hf_home / "hub",
            # The originals of gpt-oss in other formats are as large again and are never read here.
            ignore_patterns=["original/*", "metal/*", "*.bin", "*.pth"],
        )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise Refused(
            f"{job.repository} could not be fetched: {str(error).splitlines()[0]} "
            "Check the name, the network, and HF_TOKEN if the repository is gated."
        ) from None
    context.event("published", name=f"{job.repository}@{os.path.basename(path)}")


if __name__ == "__main__":
    main(fetch)
