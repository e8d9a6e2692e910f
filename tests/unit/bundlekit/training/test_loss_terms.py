"""The terms of the loss on their way to what MONAI prints."""

from __future__ import annotations

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import StatsHandler

from bundlekit.training.loss_terms import LossTerms
from invres3d.losses import RegularizedLoss
from invres3d.nets import FullyInvertibleUNet


def test_epoch_means_reach_monais_printout(capsys):
    loss = RegularizedLoss(torch.nn.MSELoss())
    seen = []

    def record(engine):
        seen.append({name: term.item() for name, term in loss.terms.items()})

    net = FullyInvertibleUNet(1, 1, (4, 8), num_couplings=1)
    data = [{"image": torch.randn(1, 1, 8, 8, 8), "label": torch.randn(1, 1, 8, 8, 8)} for _ in range(3)]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=data,
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 1e-3),
        loss_function=loss,
    )
    LossTerms(loss).attach(trainer)
    StatsHandler(name="terms", output_transform=lambda out: out[0]["loss"]).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, record)
    trainer.run()
    printed = capsys.readouterr().out.splitlines()[-1]
    assert len(seen) == 6
    for name in ("segmentation", "l2", "kl"):
        want = sum(terms[name] for terms in seen[3:]) / 3  # of the last epoch only
        assert abs(trainer.state.metrics[name] - want) < 1e-6 * (1 + abs(want))
        assert f"{name}: {want:.4f}" in printed
