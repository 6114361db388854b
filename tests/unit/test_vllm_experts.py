"""The sizes of experts are those that Marlin's kernels have blocks for, and no larger."""

from services.inference.vllm.experts import padded


def fits(hidden: int, intermediate: int) -> bool:
    """Whether hidden → twice intermediate and intermediate → hidden are whole blocks of 64 inputs by 128 outputs."""
    return all(ins % 64 == 0 and out % 128 == 0 for ins, out in ((hidden, 2 * intermediate), (intermediate, hidden)))


def test_gpt_oss_is_padded_by_less_than_vllm_pads_it() -> None:
    assert padded(2880, 2880) == (2944, 2880)


def test_sizes_fit_and_none_below_them_does() -> None:
    for size in range(32, 4097, 32):
        hidden, intermediate = padded(size, size)
        assert hidden >= size and intermediate >= size and fits(hidden, intermediate)
        assert not any(fits(less, intermediate) for less in range(size, hidden, 32))
        assert not any(fits(hidden, less) for less in range(size, intermediate, 32))
