"""Strict recipes: every mistake names its key and the nearest valid one; every shipped recipe loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mind_distill.config import PACKAGED_RECIPES, find_recipe, merge, read_recipe, shipped_recipes, to_yaml
from mind_distill.errors import UserError
from mind_distill.training.settings import resolve_recipe

# Studies, which list methods, are loaded by tests/comparison/test_recipes.py, corpus recipes by tests/corpus, latent studies,
# which name problems, by tests/latent.
RECIPES = [
    p for p in shipped_recipes() if p.parent.name != "corpus" and not {"methods", "problems"} & set(read_recipe(p))
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(PACKAGED_RECIPES)))
def test_every_shipped_recipe_resolves(path: Path) -> None:
    recipe = resolve_recipe(read_recipe(path), str(path))
    assert recipe.method["name"] == "mind"
    assert resolve_recipe(recipe.model_dump(mode="json"), "again") == recipe, "settings.yaml must be a recipe too"


def test_paper_recipes_hold_the_values_of_table_8() -> None:
    small, large = (resolve_recipe(read_recipe(f"paper/mind-{size}"), size) for size in ("1.5b", "8b"))
    assert (small.training.epochs, small.training.learning_rate) == (8, 5e-5)
    assert (large.training.epochs, large.training.learning_rate) == (6, 1e-4)
    for recipe in (small, large):
        assert recipe.training.problems_per_step == 4 * 4 * 2
        assert recipe.method["warm_up"] == {"epochs": 1, "learning_rate": 1e-4, "batch": 4}
        assert recipe.method["meta_learning_rate"] == 5e-5
        assert recipe.answer_format == "boxed"


def test_recipes_are_found_by_name_by_path_and_from_anywhere() -> None:
    assert find_recipe("quickstart") == find_recipe("recipes/quickstart.yaml") == PACKAGED_RECIPES / "quickstart.yaml"
    with pytest.raises(UserError, match="There is no recipe 'quickstrt'.*quickstart.yaml"):
        find_recipe("quickstrt")
    with pytest.raises(UserError):
        find_recipe("../config.py")


def resolve(text: str, *overrides: str) -> object:
    Path("own.yaml").write_text(text, encoding="utf-8")
    return resolve_recipe(read_recipe("own.yaml", list(overrides)), "own.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("trainng: {epochs: 1}", r"own.yaml: key 'trainng' is not known. Did you mean 'training'\?"),
        ("training: {epoch: 1}", r"key 'training.epoch' is not known. Did you mean 'training.epochs'\?"),
        ("training: {lora: {rnak: 4}}", r"'training.lora.rnak' is not known. Did you mean 'training.lora.rank'\?"),
        ("method: {name: mind, metanet: {widht: 4}}", r"'metanet.widht' is not known. Did you mean 'metanet.width'\?"),
        ("training: {epochs: many}", r"training.epochs: .*integer.*got 'many'"),
        ("training: {learning_rate: .nan}", r"training.learning_rate: .*finite"),
        ("training: {epochs: 1, epochs: 2}", r"key 'epochs' stands twice"),
        ("a: &x [1]\nb: *x", r"aliases"),
        ("- a\n- b", r"a recipe is a set of 'key: value' lines"),
        ("training: [", r"not valid YAML"),
        ("base: own.yaml", r"goes round in a circle"),
    ],
)
def test_a_mistake_in_a_recipe_says_where_and_what_is_accepted(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        resolve(text)


def test_overrides_win_over_the_recipe_and_its_base() -> None:
    recipe = resolve("base: quickstart.yaml\ntraining: {epochs: 3}", "training.learning_rate=1e-3", "corpus.slice=")
    assert recipe.training.epochs == 3  # type: ignore[attr-defined]
    assert recipe.training.learning_rate == 1e-3  # type: ignore[attr-defined]
    assert recipe.corpus.slice is None  # type: ignore[attr-defined]
    assert recipe.corpus.limit == read_recipe("quickstart")["corpus"]["limit"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"'epochs' is not of the form key\.sub=value"):
        resolve("{}", "epochs")


def test_a_method_of_another_name_brings_its_own_settings() -> None:
    below = {"method": {"name": "mind", "beta": 0.3}}
    assert merge(below, {"method": {"name": "uniform"}}) == {"method": {"name": "uniform"}}
    assert merge(below, {"method": {"beta": 0.4}}) == {"method": {"name": "mind", "beta": 0.4}}


def test_a_value_that_stands_twice_is_written_so_that_it_can_be_read(tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8}
    recipe = {"training": {"lora": lora}, "first": {"training": {"lora": lora}}}
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    assert read_recipe(path) == recipe
