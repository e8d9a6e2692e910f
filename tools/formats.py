"""The formats that a bundle's network is exported to: writes, opens and compares the files with the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from bundlekit.errors import InputError, describe
from bundlekit.files import write_atomically
from tools.commands import call

__all__ = ["FIXED_STEPS", "FORMATS", "SHIPPED", "Exported", "open_exported", "write_exported"]

SHIPPED = ("ts", "pt2")
"""Endings of the exported files that every bundle has in models/: TorchScript and ExportedProgram."""

FORMATS = (*SHIPPED, "onnx")

FIXED_STEPS = "net_fixed_step"
"""The overlay for ONNX of a network whose steps depend on the image."""

_CONFIGS = ("metadata.json", "inference.json")


class Exported(NamedTuple):
    """What is in an exported file."""

    network: Callable[[torch.Tensor], torch.Tensor]
    state_dict: dict[str, torch.Tensor]
    configs: dict[str, str]
    """Text of each config that the file holds, empty where it is missing."""


def write_exported(bundle: Path, network: nn.Module, image: torch.Tensor, path: Path) -> None:
    """Write the network in the format that the ending of ``path`` names; batch and sizes are free.

    Args:
        bundle: its folder, of which .ts takes network and weights.
        network: for the other formats, in evaluation mode.
        image: a batch of two or more, no axis of which is as long as another one.
        path: ends in one of FORMATS.

    Raises:
        InputError: where torch cannot export the network.
    """
    if path.suffix == ".ts":
        _write_script(bundle, path)
        return
    axes = dict.fromkeys([0, *range(2, image.ndim)], torch.export.Dim.DYNAMIC)
    write = _write_onnx if path.suffix == ".onnx" else _write_program
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, on every export
            write(bundle, network, image, axes, path)
    except Exception as error:  # torch's own, of many kinds and pages
        found = f"the network cannot be exported ({type(error).__name__})"
        expected = "operations that do not depend on the values of the image"
        remedy = f"export with configs/{FIXED_STEPS}.json, or omit the format from --formats"
        raise InputError(path.name, found, expected, remedy) from error


def _write_script(bundle: Path, path: Path) -> None:
    files = {name: f"configs/{name}.json" for name in ("metadata", "inference")}
    words = ["--meta_file", files["metadata"], "--config_file", files["inference"]]
    ckpt = bundle / "models/model.pt"
    call(bundle, "-m", "monai.bundle", "ckpt_export", "network_def", "--filepath", path, *words, "--ckpt_file", ckpt)


def _write_program(bundle: Path, network: nn.Module, image: torch.Tensor, axes: dict, path: Path) -> None:
    program = torch.export.export(network, (image,), dynamic_shapes=(axes,))
    for graph in program.graph_module.modules():  # the graph's own and those of its loops
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine, and a fifth of the graph's size
    program.example_inputs = ((image[:1].clone(),), {})
    texts = {name: (bundle / "configs" / name).read_text(encoding="utf-8") for name in _CONFIGS}
    torch.export.save(program, path, extra_files=texts)


def _write_onnx(bundle: Path, network: nn.Module, image: torch.Tensor, axes: dict, path: Path) -> None:
    names = {"input_names": ["image"], "output_names": ["pred"]}
    program = torch.onnx.export(network, (image,), dynamic_shapes=(axes,), dynamo=True, verbose=False, **names)
    write_atomically(path, lambda name: program.save(name, external_data=False))


def open_exported(path: Path) -> Exported:
    """The network, weights and configs in an exported file; of ONNX the network only.

    Raises:
        InputError: where the file cannot be read as what its ending says.
    """
    try:
        return _OPEN[path.suffix](path)
    except Exception as error:  # torch.jit.Error is nothing but an Exception
        found = f"cannot be loaded ({describe(error)})"
        raise InputError(path, found, f"a network as {_NAMES[path.suffix]}", "export it again") from error


def _open_script(path: Path) -> Exported:
    configs = dict.fromkeys(_CONFIGS, "")
    network = torch.jit.load(path, map_location="cpu", _extra_files=configs).eval()
    return Exported(network, network.state_dict(), configs)


def _open_program(path: Path) -> Exported:
    configs = dict.fromkeys(_CONFIGS, "")
    program = torch.export.load(path, extra_files=configs)
    return Exported(program.module(), program.state_dict, configs)


def _open_onnx(path: Path) -> Exported:
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Exported(lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]), {}, {})


_OPEN = {".ts": _open_script, ".pt2": _open_program, ".onnx": _open_onnx}
_NAMES = {".ts": "TorchScript", ".pt2": "ExportedProgram", ".onnx": "ONNX"}
