"""Every config of every bundle, plain and under its overlays: arguments, references, names and metrics exist."""

from __future__ import annotations

import ast
import builtins
import inspect
import pydoc
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver


def components(parser: ConfigParser) -> dict[str, ConfigComponent]:
    items = parser.ref_resolver.items
    return {where: item for where, item in items.items() if isinstance(item, ConfigComponent)}


def find_unbound(parser: ConfigParser) -> list[str]:
    """Components whose callable is missing or does not take their keys."""
    problems = []
    for where, component in components(parser).items():
        path = component.resolve_module_name()
        target = pydoc.locate(path)
        if target is None:
            problems.append(
                f"{where}: no {path!r} to be found; expected a name of MONAI or a dotted path: correct _target_"
            )
            continue
        signature = inspect.signature(target)
        bind = signature.bind_partial if component.config.get("_mode_") == "callable" else signature.bind
        try:
            bind(**component.resolve_args())
        except TypeError as error:
            problems.append(f"{where}: {path} has {error}")
    return problems


def find_lost_references(parser: ConfigParser) -> dict[str, str]:
    """Ids that are referred to and do not exist, by the id of the place that does."""
    items = parser.ref_resolver.items
    texts = {where: item.config for where, item in items.items() if isinstance(item.config, str)}
    used = [(where, target) for where, text in texts.items() for target in ReferenceResolver.match_refs_pattern(text)]
    return {where: f"{where}: no id '@{target}': correct it" for where, target in used if target not in parser}


def bind_import(text: str) -> dict[str, Any]:
    """The name that MONAI defines for "$import ..." (its dots included) and what it stands for, None if nothing."""
    (statement,) = ast.parse(text).body
    module = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
    alias = statement.names[0]
    return {alias.asname or alias.name: pydoc.locate(module + alias.name)}


def find_undefined(code: str, known: Mapping[str, Any]) -> set[str]:
    """Names that an expression uses and nobody defines, and attributes that the known modules lack."""
    nodes = list(ast.walk(ast.parse(code, mode="eval")))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    local = {node.arg for node in nodes if isinstance(node, ast.arg)}
    local |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    undefined = {node.id for node in names} - local - known.keys() - set(dir(builtins))
    for path in [ast.unparse(node).split(".") for node in nodes if isinstance(node, ast.Attribute)]:
        if path[0] in known.keys() - local and all(part.isidentifier() for part in path):
            value = known[path[0]]
            for part in path[1:]:
                value = getattr(value, part, None)
            undefined |= {".".join(path)} if value is None else set()
    return undefined


def find_bad_expressions(parser: ConfigParser) -> list[str]:
    """Expressions that MONAI cannot parse, or cannot evaluate for want of a name."""
    items = parser.ref_resolver.items
    problems, imports, codes = [], [], {}
    for where, text in [(where, item.config) for where, item in items.items() if isinstance(item, ConfigExpression)]:
        if "import" in text and ReferenceResolver.match_refs_pattern(text):
            problems.append(f"{where}: MONAI takes an expression with 'import' and an @id for a statement: reword it")
        elif ConfigExpression.is_import_statement(text):
            imports.append(bind_import(text[1:]))
        else:
            codes[where] = ReferenceResolver.id_matcher.sub("None", ReferenceResolver.normalize_id(text)[1:]).strip()
    known = dict(parser.globals)
    for name, value in [item for names in imports for item in names.items()]:
        known[name] = value
        problems += [f"imports: nothing to import as {name!r}"] if value is None else []
    for where, code in codes.items():
        try:
            undefined = sorted(find_undefined(code, known))
        except SyntaxError as error:
            problems.append(f"{where}: {error}: {code}")
            continue
        for name in undefined:
            problems.append(
                f"{where}: {name!r} is not defined: import or correct it ('$import a.b' does not define 'a')"
            )
    return problems


def find_undefined_metrics(parser: ConfigParser) -> list[str]:
    """Engines without exactly one key metric, and metrics that are saved or selected by and that no engine computes."""
    problems, defined, saved = [], set(), []
    for where, component in components(parser).items():
        for argument in {"key_val_metric", "key_train_metric", "additional_metrics"} & component.config.keys():
            names = list(parser.get_parsed_content(f"{where}::{argument}"))
            defined.update(names)
            if argument != "additional_metrics" and len(names) != 1:
                problems.append(f"{where}::{argument}: {names}; expected one: MONAI selects by the first only")
        for argument in {"key_metric_name", "metrics", "metric_details"} & component.config.keys():
            value = parser.get_parsed_content(f"{where}::{argument}")
            saved += [(f"{where}::{argument}", name) for name in ([value] if isinstance(value, str) else value or [])]
    for where, name in saved:
        if name not in {"*", *defined}:
            problems.append(f"{where}: no engine computes {name!r}, only {sorted(defined)}: define or correct it")
    return problems


def test_arguments_bind(config):
    problems = find_unbound(config.parser())
    assert not problems, f"{config}: " + "; ".join(problems)


def test_references_resolve(config):
    lost = find_lost_references(config.parser())
    # what an overlay adds for its other base is ignored here, with all that it refers to
    ignored = config.ids_of_all_bases - ConfigParser.load_config_file(config.files[0]).keys()
    problems = [problem for where, problem in lost.items() if where.split("::")[0] not in ignored]
    assert not problems, f"{config}: " + "; ".join(problems)


def test_expressions_have_their_names(config):
    problems = find_bad_expressions(config.parser())
    assert not problems, f"{config}: " + "; ".join(problems)


def test_metrics_are_defined(config):
    problems = find_undefined_metrics(config.parser())
    assert not problems, f"{config}: " + "; ".join(problems)


CONTENT = {
    "imports": ["$import os", "$from collections import Counter as C"],
    "size": 4,
    "loss": {"_target_": "DiceLoss", "sigmoid": True, "_disabled_": "$C([@size])[0] > 1"},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "_mode_": "callable"},
    "key_metric": {"val_dice": {"_target_": "MeanDice"}},
    "more": "${f'val_{name}': name for name in 'ab'}",
    "engine": {
        "_target_": "SupervisedEvaluator",
        "device": "$torch.device('cpu')",
        "val_data_loader": [],
        "network": "$torch.nn.Identity()",
        "key_val_metric": "@key_metric",
        "additional_metrics": "@more",
        "val_handlers": [{"_target_": "MetricsSaver", "save_dir": ".", "metrics": ["val_dice", "val_a"]}],
    },
    "run": ["$@engine.run(os.getcwd(), (lambda device: device.any)(@engine#device).type)"],
}
MISTAKES = [
    (find_unbound, {"loss::_target_": "DiceLos"}),
    (find_unbound, {"loss::_target_": "torch.nn.NoSuchLoss"}),
    (find_unbound, {"loss::sigmoit": True}),
    (find_unbound, {"loss": {"_target_": "CheckpointLoader", "load_path": ""}}),
    (find_unbound, {"optimizer::momentun": 0.9}),
    (find_lost_references, {"run": "$@engine::devise"}),
    (find_lost_references, {"run": ["@siz"]}),
    (find_bad_expressions, {"run": "$oss.getcwd()"}),
    (find_bad_expressions, {"run": "$os.getcwdd(@size)"}),
    (find_bad_expressions, {"run": "$os.getcwd("}),
    (find_bad_expressions, {"run": "$print('important', @size)"}),
    (find_bad_expressions, {"imports::0": "$import os.path"}),
    (find_bad_expressions, {"imports::1": "$from collections import Countre as C"}),
    (find_undefined_metrics, {"engine::val_handlers::0::metrics": "val_acc"}),
    (find_undefined_metrics, {"engine::val_handlers::0::metric_details": ["*", "val_c"]}),
    (find_undefined_metrics, {"engine::key_val_metric": {"val_dice": 0, "val_iou": 1}}),
]


@pytest.mark.parametrize(("find", "change"), MISTAKES)
def test_a_mistake_is_found(find, change):
    parser = ConfigParser(deepcopy(CONTENT))
    parser.parse()
    assert not find(parser)
    parser = ConfigParser(deepcopy(CONTENT))
    parser.update(change)
    parser.parse()
    assert len(find(parser)) == 1
