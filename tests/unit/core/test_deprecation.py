"""Names that will go work on, and say so once to whoever uses them."""

from __future__ import annotations

import warnings

import pytest

from labelsieve.core.deprecation import deprecated, renamed_arguments
from labelsieve.core.errors import SettingsError


@deprecated(instead="total()", removed_in="0.3")
def add(first: int, second: int = 1) -> int:
    """Adds."""
    return first + second


@renamed_arguments(lora_rank="bottleneck", size="images", removed_in="0.4")
def adapt(data: str, *, bottleneck: int = 8, images: int = 0) -> tuple[str, int, int]:
    return data, bottleneck, images


def test_a_function_that_goes() -> None:
    with pytest.warns(FutureWarning, match=r"^add\(\) goes with labelsieve 0\.3; use total\(\)$") as caught:
        assert add(2, second=3) == 5
    assert caught[0].filename == __file__, "it points at the call"
    assert (add.__name__, add.__doc__) == ("add", "Adds.")


def test_an_argument_by_its_old_name() -> None:
    with pytest.warns(
        FutureWarning, match=r"^lora_rank of adapt\(\) goes with labelsieve 0\.4; use bottleneck$"
    ) as caught:
        assert adapt("x", lora_rank=4) == ("x", 4, 0)
    assert [each.filename for each in caught] == [__file__]
    with pytest.warns(FutureWarning) as caught:
        assert adapt("x", lora_rank=4, size=9) == ("x", 4, 9)
    assert len(caught) == 2


def test_the_new_name_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapt("x", bottleneck=4) == ("x", 4, 0) and adapt("y") == ("y", 8, 0)


def test_both_names_at_once() -> None:
    with pytest.raises(
        SettingsError, match=r"expected one of bottleneck and its old name lora_rank in adapt\(\), got both"
    ):
        adapt("x", lora_rank=4, bottleneck=4)
    with pytest.raises(TypeError, match="rank"):
        adapt("x", rank=4)
