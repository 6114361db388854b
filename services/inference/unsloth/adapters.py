"""The adapters in memory: read when first asked for, the one that was used last stays longest, one in use always."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from services.inference.engine import Unfit, Weights

BROKEN = (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError)  # what PEFT raises for such files


class Adapters:
    """Adapters put on a model and off by PEFT, inside it. All methods are for the thread that owns the model.

    peft is imported when there is something to load: Unsloth, which patches it, must be there first."""

    def __init__(self, model: Any, most: int) -> None:
        self.model, self.most = model, most
        self.peft: Any = None  # PEFT's own view of the model, from the first adapter on
        self.loaded: OrderedDict[str, set[str]] = OrderedDict()  # sha256 -> the parameters it targets besides modules
        self.on: str | None = None

    def ready(self, weights: Weights, in_use: set[str]) -> bool:
        """Have the weights in memory. False as long as those `in_use`, by their hashes, leave no room for them.

        Raises Unfit for an adapter that has no place in the base model."""
        if weights.adapter is None:
            return True
        if weights.sha256 not in self.loaded:
            config = _config(weights)
            wanted = set(getattr(config, "target_parameters", None) or ())
            # PEFT takes adapters on different sets of parameters one after the other only
            clashing = {name for name, had in self.loaded.items() if wanted and had and had != wanted}
            idle = [name for name in self.loaded if name not in in_use and name not in clashing]
            surplus = max(len(self.loaded) - len(clashing) + 1 - self.most, 0)
            if clashing & in_use or surplus > len(idle):
                return False
            for name in (*clashing, *idle[:surplus]):
                self._forget(name)
            self._load(weights)
            self.loaded[weights.sha256] = wanted
        self.loaded.move_to_end(weights.sha256)
        return True

    def put_on(self, weights: Weights) -> None:
        """Make `weights`, which are ready, the ones that the next pass uses."""
        if weights.adapter is None:
            if self.on is not None:
                self.peft.base_model.disable_adapter_layers()
                self.on = None
        elif self.on != weights.sha256:
            self.peft.base_model.enable_adapter_layers()
            self.peft.base_model.set_adapter(weights.sha256, inference_mode=True)
            self.on = weights.sha256

    def _load(self, weights: Weights) -> None:
        from peft import PeftModel

        folder, name = str(weights.adapter), weights.sha256
        self.on = ""  # whatever happens, what is on now must be put on again
        try:
            if self.peft is None:
                self.peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name, is_trainable=False)
            else:
                self.peft.load_adapter(folder, adapter_name=name, is_trainable=False)
            self.peft.eval()
            self._check(weights)
        except BROKEN as error:
            if self.peft is not None and name in self.peft.peft_config:
                self._forget(name)
            raise error if isinstance(error, Unfit) else Unfit(_refusal(weights, str(error))) from error

    def _check(self, weights: Weights) -> None:
        """Raises Unfit where PEFT found no place for a tensor: it only warns, and answers as without it."""
        from peft import get_peft_model_state_dict

        placed = get_peft_model_state_dict(self.peft, adapter_name=weights.sha256)
        with safe_open(Path(str(weights.adapter)) / "adapter_model.safetensors", "pt") as file:
            names = list(file.keys())
        lost = [name for name in names if name not in placed]
        if lost:
            raise Unfit(_refusal(weights, f"{len(lost)} of its {len(names)} tensors have no place there, as {lost[0]}"))

    def _forget(self, name: str) -> None:
        self.peft.delete_adapter(name)
        self.loaded.pop(name, None)
        self.on = ""


def _config(weights: Weights) -> Any:
    from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(str(weights.adapter))
    except BROKEN as error:
        raise Unfit(_refusal(weights, str(error))) from error


def _refusal(weights: Weights, reason: str) -> str:
    return (
        f"The adapter {weights.name} does not fit the base model that is served: {reason}. Train it on that base model."
    )
