from pathlib import Path

import msgspec

from yunmo.cli.reference import documented, reference
from yunmo.core.recipe import Recipe

PAGE = Path(__file__).parents[3] / "docs" / "recipe.md"


def test_the_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make reference`"


def specs(kind: msgspec.inspect.Type) -> set[type]:
    found = set()
    if isinstance(kind, msgspec.inspect.StructType):
        found.add(kind.cls)
        for field in kind.fields:
            found |= specs(field.type)
    for name in ("type", "item_type", "value_type"):
        if isinstance(inner := getattr(kind, name, None), msgspec.inspect.Type):
            found |= specs(inner)
    for inner in getattr(kind, "types", ()):
        found |= specs(inner)
    return found


def test_every_specification_that_a_recipe_can_hold_is_documented() -> None:
    assert documented() == specs(msgspec.inspect.type_info(Recipe))
