"""Continuous batching over the model that Unsloth loads: small, exact, and the judge of faster engines."""
