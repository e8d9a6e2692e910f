"""Train one network on the data of several sites by federated averaging, simulated in one process.

    python -m tools.federated hippocampus_mri_segmentation --clients SITE1 SITE2 --rounds 20 --output runs/federated

In each round every client trains the global weights on its own data and returns only the weights. The new global
weights are the mean of the clients' weights, weighted by their numbers of training images (McMahan et al. 2017). A
client is MONAI's `monai.fl.client.MonaiAlgo` on the bundle's `configs/train.json`, as NVIDIA FLARE runs it; here one
process runs all clients in turn. A client's folder has the form of the bundle's `--dataset_dir`.

OUTPUT/model.pt holds the global weights, OUTPUT/rounds.json the losses of the clients and the scores of the global
weights on their validation images, OUTPUT/<client>/ the files that a client does not share. After an interruption the
same command continues with the interrupted round and gives the same result as an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from bundlekit.files import write_atomically
from bundlekit.training.folder import release_folder
from bundlekit.training.own_weights import sha256_of
from bundlekit.training.state import TrainingState

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
Weights = Mapping[str, torch.Tensor]


def average(clients: Sequence[Weights], counts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Mean of weights, each client's counted by its number of images; of whole numbers, as of batches, the largest."""
    shares = [count / sum(counts) for count in counts]
    means = {}
    for name, first in clients[0].items():
        values = [client[name] for client in clients]
        if first.is_floating_point():
            total = sum(share * value.double() for share, value in zip(shares, values, strict=True))
            means[name] = torch.as_tensor(total).to(first.dtype)
        else:
            means[name] = torch.stack(values).amax(dim=0)
    return means


class Client:
    """One site: its training and its validation, as MONAI's algorithm for federated learning runs them."""

    def __init__(self, args: argparse.Namespace, name: str, data: Path, number: int) -> None:
        self.name = name
        self.folder = folder = args.output / name
        common = {"bundle_root": str(args.bundle), "dataset_dir": str(data), "output_dir": str(folder), **args.set}
        common |= {"ckpt_path": str(folder / "model.pt")}
        train = {**common, "seed": args.seed + number, "checks::resume": True}  # of this program, see take_up
        configs = [f"configs/{config}.json" for config in ("train", *args.overlays)]
        schedule = ConfigParser.load_config_files([args.bundle / config for config in configs])["lr_scheduler"]
        if "T_max" in schedule:  # its length, which would else be one round
            train["lr_scheduler::T_max"] = args.rounds * args.local_epochs
        self.algorithm = MonaiAlgo(
            bundle_root=str(args.bundle),
            local_epochs=args.local_epochs,
            send_weight_diff=False,
            config_train_filename=configs,
            train_kwargs=train,
            config_evaluate_filename=[*configs, "configs/evaluate.json"],
            eval_kwargs={**common, "section": "validation"},
        )
        self.algorithm.initialize({ExtraItems.CLIENT_NAME: name})
        workflow: Any = self.algorithm.train_workflow
        parser = workflow.parser
        parser.get_parsed_content("run::0", eval_expr=True)  # the checks before a run
        self.num_images = len(parser.get_parsed_content("train::dataset"))
        handlers = parser.get_parsed_content("train::handlers")
        self.keeper = next(handler for handler in handlers if isinstance(handler, TrainingState))

    def own_state(self) -> dict[str, Any]:
        """What it keeps from one round to the next: optimiser, schedule, history; not the weights, which are global."""
        state = torch.load(self.keeper.state_path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if name != "network"}

    def take_up(self, own_state: dict[str, Any], weights: Weights) -> None:
        """Go back to the end of a round, whatever a round that was broken off has left."""
        own_file = sha256_of(self.keeper.ckpt_path)
        state = {**own_state, "network": dict(weights), "weights_sha256": own_file}
        write_atomically(self.keeper.state_path, lambda part: torch.save(state, part))
        self.keeper.restore(self.algorithm.trainer)

    def train(self, weights: Weights) -> tuple[Weights, float]:
        """The client's weights after a round that began with the global ones, and its mean loss."""
        self.algorithm.train(ExchangeObject(weights=dict(weights)))
        received = self.algorithm.get_weights().weights
        history = json.loads((self.folder / "history.json").read_text())
        return {name: value.clone() for name, value in received.items()}, history["loss"][-1][1]

    def score(self, weights: Weights) -> dict[str, float]:
        """Of the global weights, on the client's validation images."""
        return self.algorithm.evaluate(ExchangeObject(weights=dict(weights))).metrics


def save(output: Path, state: dict[str, Any]) -> None:
    """The state as a whole first, from which the other two files can be made again."""
    write_atomically(output / "state.pt", lambda part: torch.save(state, part))
    write_atomically(output / "model.pt", lambda part: torch.save(state["weights"], part))
    text = json.dumps(state["rounds"], indent=1)
    write_atomically(output / "rounds.json", lambda part: part.write_text(text))


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What makes two runs the same."""
    values = {**vars(args), "bundle": args.bundle.name, "clients": list(map(str, args.clients))}
    values["initial"] = None if args.initial is None else str(args.initial)
    del values["output"]
    return values


def begun(args: argparse.Namespace) -> dict[str, Any] | None:
    """The state that a run of the same command has left.

    Raises:
        SystemExit: when it was another's.
    """
    path = args.output / "state.pt"
    if not path.exists():
        return None
    remedy = "pass another --output"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        was = state["settings"]
    except Exception as error:
        found = f"expected the state of this program, found other content ({str(error).splitlines()[0]})"
        raise SystemExit(f"error: {path}: {found}; {remedy}") from None
    now = settings_of(args)
    other = [f"--{name} {was.get(name)}, not {value}" for name, value in now.items() if was.get(name) != value]
    if other:
        raise SystemExit(f"error: {path}: was started with {'; '.join(other)}; pass the same again, or {remedy[5:]}")
    return state


def first_weights(args: argparse.Namespace, client: Client) -> dict[str, torch.Tensor]:
    """Those of --initial, or the random ones that a client begins with."""
    if args.initial:
        return torch.load(args.initial, map_location="cpu", weights_only=True)
    return {name: value.clone() for name, value in client.algorithm.get_weights().weights.items()}


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds; returns what rounds.json holds."""
    args.output.mkdir(parents=True, exist_ok=True)
    state = begun(args)
    if state is not None and len(state["rounds"]) == args.rounds:
        save(args.output, state)
        print(f"all {args.rounds} rounds are done: {args.output / 'model.pt'}")
        return state["rounds"]
    names = [f"client{i}" for i in range(1, len(args.clients) + 1)]
    clients = [Client(args, *site, i) for i, site in enumerate(zip(names, args.clients, strict=True))]
    if state is None:
        weights = first_weights(args, clients[0])
        state = {"settings": settings_of(args), "rounds": [], "weights": weights}
    else:
        for client, own in zip(clients, state["clients"], strict=True):
            client.take_up(own, state["weights"])
    for number in range(len(state["rounds"]) + 1, args.rounds + 1):
        trained, losses = zip(*(client.train(state["weights"]) for client in clients), strict=True)
        state["weights"] = average(trained, [client.num_images for client in clients])
        scores = [client.score(state["weights"]) for client in clients]
        own = [
            {"name": client.name, "images": client.num_images, "loss": loss, **scored}
            for client, loss, scored in zip(clients, losses, scores, strict=True)
        ]
        state["rounds"].append({"round": number, "clients": own})
        state["clients"] = [client.own_state() for client in clients]
        save(args.output, state)
        summary = "; ".join(f"{client['name']} {client['loss']:.4f}" for client in own)
        print(f"round {number} of {args.rounds}: loss {summary}", flush=True)
    for client in clients:
        client.algorithm.finalize()
        release_folder(client.folder, client.keeper.ckpt_path)
    return state["rounds"]


def setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not a setting; expected NAME=VALUE, such as batch_size=4")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", choices=sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()))
    parser.add_argument("--clients", type=Path, nargs="+", required=True, help="data folder of each site")
    parser.add_argument("--output", type=Path, required=True, help="folder of the global weights and of the clients")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--local_epochs", type=int, default=1, help="epochs of each client in a round")
    parser.add_argument("--initial", type=Path, help="initial weights (default: random)")
    parser.add_argument("--overlays", nargs="*", default=[], help="overlays of train.json, such as net_paper")
    parser.add_argument(
        "--set", type=setting, nargs="*", default=[], metavar="NAME=VALUE", help="options of the configs"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.bundle = (BUNDLES / args.bundle).resolve()
    args.clients = [path.resolve() for path in args.clients]
    args.output, args.set = args.output.resolve(), dict(args.set)
    args.initial = args.initial.resolve() if args.initial else None
    for site in args.clients:
        if not (site / "dataset.json").is_file():
            raise SystemExit(f"error: {site}: has no dataset.json; expected the data of a client; correct --clients")
    warnings.filterwarnings("ignore", "executing the bundle config")  # these are our own
    run(args)


if __name__ == "__main__":
    main()
