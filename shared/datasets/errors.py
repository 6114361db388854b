"""What can go wrong with a dataset, said in sentences that a person can act on."""


class DatasetError(ValueError):
    """The file or dataset as a whole cannot be used: what happened, why, and the way out.

    `details` holds the first rejected rows, as they would stand in `rejected.jsonl`, where rows are the reason."""

    def __init__(self, message: str, details: list[dict] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


class NotCached(DatasetError):
    """The dataset is not in the local Hugging Face cache and has to be fetched first."""


class RowError(ValueError):
    """One row cannot be learned from; the text is its reason in `rejected.jsonl`, without the place."""
