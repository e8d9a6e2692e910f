"""A training ends at its first value that is not finite: the iteration that is named, and what stays on the disk."""

import json

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundlekit.training.finite import FiniteValues
from tests.commands import start_ranks
from tests.unit.bundlekit.training.test_state import assert_same, build, read

REMEDY = "expected finite numbers; train with a lower --learning_rate, or look for extreme values in the images; "


def at_iteration(trainer, number, change):
    trainer.add_event_handler(Events.ITERATION_STARTED(once=number), lambda engine: change(engine))


def poison_loss(engine):
    engine.state.batch["image"][0, 0] = float("inf")


def poison_weight(engine):
    """A gradient that the loss does not show."""
    weight = engine.network[0].weight
    weight.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize(
    ("poison", "found"),
    [(poison_loss, "the loss is "), (poison_weight, "1 of 4 weights are not finite, first 0.weight; ")],
)
def test_the_run_ends_and_the_state_of_the_last_epoch_is_kept(tmp_path, capsys, poison, found):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    build(whole, 4).run()
    trainer = build(broken, 4)
    at_iteration(trainer, 8, poison)  # in the middle of epoch 3
    with pytest.raises(SystemExit) as stop:
        trainer.run()
    assert stop.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: epoch 3, iteration 8: {found}") and REMEDY in line
    saved = read(broken)["saved"]
    assert line.endswith(f"; {broken}/state.pt is of epoch 2, {broken}/model.pt is of epoch {saved['weights']}")
    assert read(broken)["epoch"] == 2
    assert [epoch for epoch, _ in json.loads((broken / "history.json").read_text())["loss"]] == [1, 2]

    build(broken, 4, resume=True).run()  # what was wrong is gone
    assert_same(read(whole)["network"], read(broken)["network"])
    assert read(whole)["history"] == read(broken)["history"]
    assert_same(*(torch.load(folder / "model.pt", weights_only=True) for folder in (whole, broken)))


def test_the_first_epoch(tmp_path, capsys):
    trainer = build(tmp_path, 4)
    at_iteration(trainer, 2, poison_loss)
    with pytest.raises(SystemExit):
        trainer.run()
    assert capsys.readouterr().err.endswith("; nothing has been saved\n") and not list(tmp_path.iterdir())


def test_statistics_of_batch_norm_count_as_weights(capsys):
    network = nn.BatchNorm1d(1)
    trainer = Engine(lambda engine, batch: (network(batch), {"loss": 0.0})[1])
    FiniteValues(network, lambda: "").attach(trainer)
    with pytest.raises(SystemExit):
        trainer.run([torch.tensor([[1.0], [2.0]]), torch.tensor([[3e38], [-3e38]])])
    assert "epoch 1, iteration 2: 1 of 4 weights are not finite, first running_var;" in capsys.readouterr().err


def test_a_step_that_a_gradient_scaler_leaves_out_is_none_of_it():
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    scales = []

    def step(engine, batch):
        optimizer.zero_grad()
        loss = (1e5 * network(batch)).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        return {"loss": loss}

    before = network.weight.item()
    trainer = Engine(step)
    FiniteValues(network, lambda: "").attach(trainer)
    trainer.run([torch.ones(2, 1)] * 3)
    assert scales == [2.0**119, 2.0**118, 2.0**117] and network.weight.item() == before


PROGRAM = """
import sys
import torch
import torch.distributed as dist
from ignite.engine import Engine
from torch import nn
from bundlekit.training.finite import FiniteValues

dist.init_process_group("gloo")
losses = torch.ones(3)
if dist.get_rank() == 1:
    losses[1] = float("nan")
trainer = Engine(lambda engine, batch: {"loss": batch})
FiniteValues(nn.Linear(1, 1), lambda: "nothing").attach(trainer)
trainer.run(list(losses))
print("went on")
"""


def test_all_processes_end_together_and_the_first_one_says_why(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    ranks = start_ranks(2, tmp_path / "program.py")
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], outputs
    assert "went on" not in outputs[0][0] + outputs[1][0]
    lines = [[line for line in err.splitlines() if line.startswith("error: ")] for _, err in outputs]
    assert lines == [[f"error: epoch 1, iteration 2: the loss is nan; {REMEDY}nothing"], []]
