"""Exports in a terminal: what they are, how far from their adapter, and how one is taken along."""

import re

import pytest

from tests.unit import fake_tandem as fake

pytestmark = pytest.mark.usefixtures("person")


def test_exports_show_size_and_bits(run):
    assert re.search(r"shop-v1-MXFP4\.gguf +shop@v1 +MXFP4 +12\.0 GiB +4\.87 +97 % +0\.0123", run("exports"))


def test_an_export_shows_how_it_agrees_and_what_fell_back(run, tandem):
    route = "GET /api/exports/shop-v1-MXFP4.gguf"
    tandem.routes[route] = fake.EXPORT
    told = run("exports", "show", "shop-v1-MXFP4.gguf")
    for words in (
        "72 MXFP4",
        "97 % of 144 tokens",
        "0.0123 nats",
        "812 tokens/s read, 32 tokens/s answered, 8 CPU cores",
    ):
        assert words in told
    assert "fell back" not in told
    tandem.routes[route] = fake.EXPORT | {"fallbacks": {"output.weight": "Q8_0"}, "fallback_share": 0.986, "parity": {}}
    assert "99 % of the weights" in run("exports", "show", "shop-v1-MXFP4.gguf")


def test_a_download_that_broke_goes_on_where_it_was(run, tandem, tmp_path):
    content, target = b"GGUF" * 1000, tmp_path / "model.gguf"
    tandem.routes["GET /api/exports/shop-v1-MXFP4.gguf"] = fake.EXPORT | {"bytes": len(content)}

    def part_of(request):
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        return 206, iter([content[start:]])

    tandem.routes["GET /api/exports/shop-v1-MXFP4.gguf/download"] = part_of
    target.with_name("model.gguf.part").write_bytes(content[:1500])
    run("exports", "download", "shop-v1-MXFP4.gguf", "--to", str(target))
    assert target.read_bytes() == content and not target.with_name("model.gguf.part").exists()
