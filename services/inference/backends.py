"""Which backend answers for a name: the engine for base and adapters, llama.cpp for exports, and for an adapter, while the
engine cannot, the export of that adapter which llama.cpp serves."""

from dataclasses import dataclass

from services.inference.engine import Engine, Sampling, Weights
from services.inference.kept import Answers, Remembering
from services.inference.messages import Unreadable
from shared import registry
from shared.schemas import NOT_SERVED, ExportCard
from shared.settings import Settings
from shared.store import NotFound, Store


@dataclass(frozen=True)
class Backend:
    """An engine, and the weights that it is asked for."""

    engine: Engine
    weights: Weights
    export: bool = False

    def check(self, sampling: Sampling) -> None:
        """Raises Unreadable for what llama.cpp is not asked for."""
        if not self.export:
            return
        if sampling.logprobs is not None:
            raise Unreadable("logprobs", "are not known of a GGUF export. Ask its adapter.")
        if sampling.grammar and (sampling.begun or sampling.forced):
            says = "cannot go together with {} on a GGUF export. Leave one of them out, or ask its adapter."
            other = "continue_final_message" if sampling.begun else "thinking_token_budget"
            raise Unreadable("response_format", says.format(other))


class Backends:
    """The two engines, with one memory of their answers where there is room for one."""

    def __init__(self, settings: Settings, engine: Engine, gguf: Engine) -> None:
        self.settings, self.store = settings, Store(settings.data)
        answers = Answers(settings.response_cache_bytes) if settings.response_cache_bytes else None
        self.engine = Remembering(engine, answers) if answers else engine
        self.gguf = Remembering(gguf, answers) if answers else gguf

    def find(self, model: str, base_sha256: str) -> Backend:
        """The one that answers for the name `model`. Raises NotFound."""
        target = registry.resolve(self.store, model, self.settings.base_model)
        if target.kind == "base":
            return Backend(self.engine, Weights(target.name, base_sha256))
        if target.kind == "adapter":
            card = registry.adapter_card(self.store, target.name)
            return Backend(self.engine, Weights(target.name, card.sha256, target.path))
        export = registry.export_card(self.store, target.name)
        if export.encoding in NOT_SERVED:
            raise NotFound(
                f"{target.name} ({export.encoding}) is for other programs; it is not served here. Use its adapter {export.adapter}."
            )
        return self._exported(export)

    def instead(self, backend: Backend, sampling: Sampling) -> Backend | None:
        """The one that may answer in its place: llama.cpp, if it serves an export of the same adapter and can do what is
        asked for."""
        export = registry.served_export(self.store, self.settings.gguf_alias)
        if backend.weights.adapter is None or export is None or export.adapter_sha256 != backend.weights.sha256:
            return None
        other = self._exported(export)
        try:
            other.check(sampling)
        except Unreadable:
            return None
        return other

    def _exported(self, card: ExportCard) -> Backend:
        return Backend(self.gguf, Weights(card.file, card.sha256), export=True)
