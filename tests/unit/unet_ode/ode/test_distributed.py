"""Two processes, half of the batch each, against one process with all of it."""

from __future__ import annotations

import pytest
import torch

from tests.commands import start
from unet_ode.nets import UNode

PROGRAM = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from unet_ode.nets import UNode

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(rank)  # the wrapper hands the weights of process 0 to all
net = DistributedDataParallel(UNode(2, 3, 2, channels=(4, 6)).double())
start = {name: value.clone() for name, value in net.module.state_dict().items()}
images = torch.load(f"{folder}/images.pt")
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for image in images[rank::2], images[rank::2].flip(-1):  # a gradient that did not arrive shows on the second pass
    optimizer.zero_grad()
    net(image).square().mean().backward()
    optimizer.step()
gradients = {name: p.grad for name, p in net.module.named_parameters()}
torch.save({"start": start, "end": net.module.state_dict(), "gradients": gradients}, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of PyTorch has no distributed package")
def test_two_processes_train_as_one(tmp_path):
    images = torch.randn(4, 3, 8, 12, dtype=torch.float64)
    torch.save(images, tmp_path / "images.pt")
    processes = [start("-c", PROGRAM, rank, tmp_path) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)

    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    net = UNode(2, 3, 2, channels=(4, 6), gradient="backprop").double()
    net.load_state_dict(found[0]["start"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for batch in (images, images.flip(-1)):
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
    for name, p in net.named_parameters():
        assert p.grad.any()
        for process in found:
            torch.testing.assert_close(process["gradients"][name], p.grad, rtol=1e-9, atol=1e-10)  # float64
            torch.testing.assert_close(process["end"][name], p.detach(), rtol=1e-9, atol=1e-10)
