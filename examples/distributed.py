"""One Bayesian network trained by several processes at once, on one machine or many.

    torchrun --nproc-per-node 2 examples/distributed.py [--data mnist --data-dir DIR] [--epochs 100] [--compile]
    torchrun --nproc-per-node 4 --max-restarts 3 examples/distributed.py --device cuda --checkpoint run.ckpt

Each process takes its share of every batch, draws noise of its own, and ends in the same parameters. With a checkpoint and
``--max-restarts`` torchrun starts all processes again when one of them dies, and the run goes on from its last epoch. It
runs as well without torchrun, in one process.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist

import pyro_vbd as vbd
from examples.arguments import at_least_one
from examples.data import LOADERS, load
from examples.reporting import write
from models.mlp import mlp


def start(device: str) -> tuple[int, str]:
    """Join the other processes, if torchrun has started this one; its rank and its device."""
    if not dist.is_torchelastic_launched():
        return 0, device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://"))
    # processes that torchrun has started again must not find the addresses of those that died
    store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", store=store, rank=rank, world_size=size)
    return rank, device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(LOADERS), default="digits")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=at_least_one, default=50)
    parser.add_argument("--batch-size", type=at_least_one, default=100, help="data of all processes in a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpoint", type=Path, help="file to write after each epoch, which every process can read")
    parser.add_argument("--weights", type=Path, help="where to write the posterior's parameters in the end")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    rank, device = start(options.device)
    torch.set_num_threads(1)
    split = load(options.data, options.data_dir)

    torch.manual_seed(options.seed)
    net = mlp(split.x[0].numel(), (300, 100), int(split.y.max()) + 1)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=len(split.x)).to(device)
    guide = vbd.VBDGuide(model)
    run = vbd.fit(
        model,
        guide,
        vbd.Batches(split.x.to(device), split.y.to(device), batch_size=options.batch_size),
        epochs=options.epochs,
        kl_schedule=vbd.schedules.kl_ramp(options.epochs // 10, options.epochs // 2),
        lr_schedule=vbd.schedules.linear_decay(0.5),
        compile=options.compile,
        checkpoint=options.checkpoint,
        seed=options.seed,
    )
    if rank == 0:
        probs = vbd.predict(model, guide, split.x_eval.to(device)).probs.cpu()
        error = 100 * (probs.argmax(-1) != split.y_eval).float().mean()
        seconds = sum(record["seconds"] for record in run.history)
        processes = dist.get_world_size() if dist.is_initialized() else 1
        print(
            f"{processes} processes, {run.step} steps in {seconds:.1f} s: test error "
            f"{error:.2f}%, {100 * vbd.sparsity(guide):.1f}% of the weights beyond log alpha = 3"
        )
        if options.weights:
            write(options.weights, lambda path: torch.save(guide.state_dict(), path))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
