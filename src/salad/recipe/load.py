"""A recipe from YAML, with overrides, and all that is wrong with it in one message."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from salad.errors import MissingFileError, RecipeError
from salad.recipe.whole import ONE_VOICE, VOICE_POOL, Recipe


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=value` overrides applied, values read as YAML.

    Raises:
        MissingFileError: no such file.
        RecipeError: unreadable YAML, unknown keys, values out of range; all of them in one message.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" In that folder: {', '.join(near)}." if near else ""
        raise MissingFileError(f"no recipe at {path}.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no recipe; it should be a mapping of keys such as 'name' and 'stage_one'.")
    for override in overrides:
        _apply(tree, override)
    return parse_recipe(tree, str(path))


def parse_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain data; `where` names its origin in messages.

    Raises:
        RecipeError: unknown keys or values out of range; all of them in one message.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        inner = {problem["loc"][:depth] for problem in found for depth in range(len(problem["loc"]))}
        # a list whose only entry is wrong counts as empty: the entry's own problem says it all
        problems = [_sentence(dict(it)) for it in found if it["type"] != "too_short" or it["loc"] not in inner]
        raise RecipeError(f"{where}: {' '.join(problems)}") from None


def save_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: write it as key=value, e.g. --set stage_one.alpha=0.5.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not readable as YAML.") from None
    node = tree
    for part in parts[:-1]:
        child = node[part] = {} if node.get(part) is None else node[part]
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override}: {part!r} is a value, not a group of keys.")
        node = child
    node[parts[-1]] = parsed


def _sentence(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"] if part not in (ONE_VOICE, VOICE_POOL)]
    key = ".".join(place)
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        if not key:  # about several keys, which the message names
            return f"{message}."
        if isinstance(problem["input"], dict) and problem["type"] == "value_error":  # the same, within a group
            return f"{key}: {message}."
        return f"{key}: {message[:1].lower()}{message[1:]}, got {problem['input']!r}."
    known = _keys_at(place[:-1])
    near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.0)
    prefix = ".".join(place[:-1])
    hint = f" The nearest valid key is {'.'.join(filter(None, [prefix, near[0]]))!r}." if near else ""
    return f"unknown key {key!r}.{hint}"


def _keys_at(place: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in place:
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else None
        choices = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]  # a group, or null
        groups = [one for one in choices if issubclass(one, BaseModel)]
        if not groups:
            return []
        model = groups[0]
    return list(model.model_fields)
