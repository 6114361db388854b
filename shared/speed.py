"""The nouns of a benchmark: which models it asks where nobody says, and what is measured of one."""

from pydantic import BaseModel, Field

from shared import registry
from shared.settings import Settings
from shared.store import Store

CONCURRENCY = [1, 4, 16]  # requests at a time
TOKENS = PROMPT_TOKENS = 128


class Speed(BaseModel):
    """The `speed` event: how fast a model answered so many requests at a time, or in `error` why it did not."""

    time: str
    model: str = Field(description="as the API calls it; an alias is resolved before")
    sha256: str | None = Field(None, description="of the weights that answered")
    engine: str | None = Field(None, description="what made the tokens, and on which GPU")
    loading: float | None = Field(
        None, description="seconds until a first answer began, which no figure here has in it"
    )
    concurrency: int | None = Field(None, description="requests at a time; null where the model did not answer at all")
    prompt_tokens: int
    tokens: int = Field(description="of each answer, which goes on past its end if need be")
    answered: int = Field(0, description="requests whose answers are measured")
    errors: int = 0
    error: str | None = Field(None, description="what the first request that failed was told")
    first_token: float | None = Field(None, description="median seconds until an answer's first token")
    first_token_p95: float | None = Field(None, description="95 % of the answers began within so many seconds")
    tokens_per_second: float | None = Field(
        None, description="median over the answers, from the first token to the last"
    )
    tokens_per_second_all: float | None = Field(None, description="of all answers together, waiting for them included")


def usual(settings: Settings, store: Store) -> list[str]:
    """What is measured where nobody says: the base, the adapter behind `production` or else the newest one, and the
    export that the GGUF server has."""
    adapters = [card.reference for card in registry.adapters(store)]
    production = registry.aliases(store).get("production")
    served = registry.served_export(store, settings.gguf_alias)
    adapter = production if production in adapters else next(iter(adapters), None)
    return [settings.base_model, *filter(None, [adapter, served and served.file])]
