"""Every key of an overlay has an effect: MONAI ignores a misspelt one without a word."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

import pytest
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser, ReferenceResolver
from monai.bundle.utils import merge_kv

MAX_LINES = 30
SHARED = ("multi_gpu_train", "track_mlflow", "track_tensorboard")
OF_THE_BUNDLE = {"one_hot", "pred_key"}
"""Arguments that say how a bundle's predictions look; all else of the shared overlays is equal."""
OWN_IDS_OF_MONAI = {"imports", "initialize", "run", "finalize", "_desc_"}
LOCATOR = ComponentLocator()


def takes(component: Mapping[str, Any], name: str) -> bool:
    """Whether the component's callable has an argument ``name``."""
    target = pydoc.locate(ConfigComponent(component, locator=LOCATOR).resolve_module_name())
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or name in {*parameters, *ConfigComponent.non_arg_keys}


def find_used(content: Mapping[str, Any], roots: Collection[str]) -> set[str]:
    """All ids that are referred to, directly or not, from the top-level ids ``roots``."""
    parser = ConfigParser(deepcopy(dict(content)))
    parser.parse()
    texts = {where: item.config for where, item in parser.ref_resolver.items.items() if isinstance(item.config, str)}
    used: set[str] = set()
    reached, found = set(), set(roots)
    while found - reached:
        reached |= found
        places = [where for where in texts if where.split("::")[0] in reached]
        used = {target for where in places for target in ReferenceResolver.match_refs_pattern(texts[where])}
        found = {target.split("::")[0] for target in used}
    return used


def find_dead_keys(base: dict[str, Any], overlay: Mapping[str, Any], ids_of_all_bases: Collection[str]) -> list[str]:
    """Keys of an overlay that change nothing, or that MONAI cannot put anywhere.

    A key is good if its id is in the base, if it is a top-level id of another base of the overlay, if it is an argument
    of its parent's ``_target_``, or if it is new and something refers to it.
    """
    parser, problems, new = ConfigParser(deepcopy(base)), [], {}
    for key, value in overlay.items():
        name = ReferenceResolver.normalize_id(key.removeprefix("+"))
        grows = key.startswith("+") and name in parser and isinstance(value, dict)
        for child in [f"{name}::{sub}" for sub in value] if grows else [name]:
            parent, last = ReferenceResolver.split_id(child, last=True)
            section = parser.get(parent)
            if child in parser or child in {*OWN_IDS_OF_MONAI, *ids_of_all_bases}:
                continue
            if not isinstance(section, dict):
                problems.append(
                    f"{key!r}: no dict {parent!r} in the base: give the whole top-level id or correct the key"
                )
                break
            if not ConfigComponent.is_instantiable(section):
                new[child] = key
            elif not takes(section, last):
                problems.append(f"{key!r}: {section['_target_']!r} has no argument {last!r}: correct the key")
        else:
            merge_kv(parser, key, value)
    used = find_used(parser.get(), base.keys() | OWN_IDS_OF_MONAI)
    for child, key in new.items():
        if not any(f"{child}::".startswith(f"{target}::") or target.startswith(f"{child}::") for target in used):
            problems.append(f"{key!r}: {child!r} is not in the base and nothing refers to it: correct the key")
    return problems


def test_overlay_is_short(overlay):
    lines = overlay.overlay.read_text().splitlines()
    assert len(lines) <= MAX_LINES, f"{overlay}: {len(lines)} lines; expected {MAX_LINES} at most: change less"


def without(content: Any, names: Collection[str]) -> Any:
    """A config's content without the keys ``names``, at any depth."""
    if isinstance(content, dict):
        return {key: without(value, names) for key, value in content.items() if key not in names}
    return [without(value, names) for value in content] if isinstance(content, list) else content


@pytest.mark.parametrize("name", SHARED)
def test_shared_overlays_are_equal(bundle, name):
    first = sorted(bundle.parent.glob(f"*/configs/{name}.json"))[0]
    own, wanted = (
        without(ConfigParser.load_config_file(path), OF_THE_BUNDLE) for path in (bundle / f"configs/{name}.json", first)
    )
    assert own == wanted, f"{bundle.name}: {name}.json differs from {first.parents[1].name}'s: make the two equal"


def test_every_key_has_an_effect(overlay):
    base, changes = (ConfigParser.load_config_file(file) for file in overlay.files)
    problems = find_dead_keys(base, changes, overlay.ids_of_all_bases)
    assert not problems, f"{overlay}: " + "; ".join(problems)


def test_a_misspelt_key_of_this_overlay_is_found(overlay):
    base, changes = (ConfigParser.load_config_file(file) for file in overlay.files)
    for key in changes.keys() - {"_desc_"}:
        parent = ConfigParser(base).get(ReferenceResolver.split_id(key.removeprefix("+"), last=True)[0])
        if ConfigComponent.is_instantiable(parent) and takes(parent, "misspelt"):
            continue  # a callable with **kwargs complains itself
        found = find_dead_keys(base, {f"{key}_misspelt": changes[key]}, overlay.ids_of_all_bases)
        assert found, f"{overlay}: {key}_misspelt passes as a key"


BASE = {
    "size": 4,
    "names": [],
    "train": {"loss": {"_target_": "DiceLoss", "sigmoid": True}, "size": "@size"},
    "key_metric": {"val_dice": {"_target_": "MeanDice"}},
    "engine": {"_target_": "SupervisedEvaluator", "key_val_metric": "@key_metric"},
    "run": ["$@train::loss", "$@engine.run([torch.device(name) for name in @names])"],
}
GOOD = [
    {"size": 5},
    {"train::loss": {"_target_": "DiceCELoss"}},
    {"train#loss#softmax": True, "train::loss::sigmoid": False},
    {"train::loss::_disabled_": True},
    {"+train::loss": {"batch": True}},
    {"+names": ["a"], "run::0": "$print()", "finalize": [], "_desc_": "text"},
    {"train::loss::weight": "@new", "new": "@newer::0", "newer": [1]},
    {"+key_metric": {"val_iou": {"_target_": "MeanIoUHandler"}}},
    {"only_in_the_other_base": 1},
]
DEAD = [
    {"sice": 5},
    {"+sice": [5]},
    {"trian::loss": 5},
    {"train::los": {"_target_": "DiceLoss"}},
    {"train::loss::sigmoit": True},
    {"+train::loss": {"sigmoit": True}},
    {"+train": {"los": 1}},
    {"run::2": "$print()"},
    {"size::value": 5},
    {"new": "@newer", "newer": "@new"},
]


@pytest.mark.parametrize("changes", GOOD, ids=", ".join)
def test_good_keys_pass(changes):
    assert find_dead_keys(BASE, changes, {*BASE, "only_in_the_other_base"}) == []


@pytest.mark.parametrize("changes", DEAD, ids=", ".join)
def test_dead_keys_are_found(changes):
    assert len(find_dead_keys(BASE, changes, {*BASE, "only_in_the_other_base"})) == len(changes)
