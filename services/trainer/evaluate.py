"""Compare an adapter with its base on conversations: loss on what they teach, and answers to their questions.

python -m services.trainer.evaluate RUN_ID
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import torch
from datasets import Dataset

from services.trainer import parity
from services.trainer.child import Context, Refused, main
from services.trainer.data import render
from services.trainer.model import load_adapter, load_base
from services.trainer.preferences import as_examples, preference
from shared import hub, registry

EXAMPLES = 64


def evaluate(context: Context) -> None:
    adapter = registry.adapter_card(context.store, str(context.spec.job.adapter))
    base = hub.snapshot(adapter.base_model, adapter.base_revision, context.settings.hf_home)
    encoder = hub.encoder(base)
    train_set, held_out, _ = render(context, adapter.values, encoder)
    examples = held_out if len(held_out) else train_set
    examples = examples.select(range(min(EXAMPLES, len(examples))))
    unseen = bool(len(held_out)) or context.spec.job.dataset != adapter.dataset
    context.log(
        f"{len(examples)} examples of {context.spec.job.dataset} that {adapter.reference} was not trained on."
        if unseen
        else f"{len(examples)} examples that {adapter.reference} was trained on: none of {adapter.dataset} is held out."
    )

    model, _ = load_base(
        context, adapter.base_model, adapter.base_revision, adapter.values.max_length, adapter.values.precision
    )
    model = load_adapter(model, context.store.adapter(adapter.reference))
    prompts = parity.prompts(context, adapter, base)
    results = {}
    for who in ("adapter", "base"):
        context.check()
        with model.disable_adapter() if who == "base" else torch.no_grad():
            loss = mean_loss(context, model, as_examples(examples))
            answers = [encoder.decode(answer.ids) for answer in parity.answers(model, prompts)]
        results[who] = {"loss": loss, "answers": answers}
        context.log(f"{who}: loss {loss:.4f}")
    if adapter.values.method == "dpo":
        results["preference"] = preference(model, examples)
    context.event("evaluation", unseen=unseen, prompts=[encoder.decode(ids) for ids in prompts], **results)
    context.event(
        "published", name=f"loss {results['base']['loss']:.4f} (base) → {results['adapter']['loss']:.4f} (adapter)"
    )


@torch.no_grad()
def mean_loss(context: Context, model: torch.nn.Module, examples: Dataset) -> float:
    """Mean cross-entropy over the supervised tokens, in nats. Raises Refused if there is none."""
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for row in examples:
        context.check()
        ids, labels = torch.tensor([row["input_ids"]], device=device), torch.tensor(row["labels"], device=device)[1:]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1][labels != -100].float()
        total += float(torch.nn.functional.cross_entropy(logits, labels[labels != -100].long(), reduction="sum"))
        count += int((labels != -100).sum())
    if not count:
        raise Refused(
            "The data set has no supervised token under the adapter's policy, so there is no loss to compare."
        )
    return total / count


if __name__ == "__main__":
    main(evaluate)
