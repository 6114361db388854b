"""The REST API: one module a noun. What it answers with is in `models`; /api/openapi.json describes it."""
