"""All-reduce between two local ranks by bare c10d (torch.distributed, Gloo): what `collective` is measured against.

usage: bench_c10d.py MEGABYTES
prints: peer=c10d allreduce_ms=.., the median of ten on the slowest rank
"""
import os
import socket
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def rank(number, megabytes, port, told):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    values = torch.ones(megabytes * 250_000)
    times = []
    for round_ in range(12):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        if round_ > 1:
            times.append((time.perf_counter() - began) * 1e3)
    told[number] = statistics.median(times)
    dist.destroy_process_group()


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with mp.Manager() as manager:
        told = manager.dict()
        mp.spawn(rank, args=(int(sys.argv[1]), port, told), nprocs=2)
        print(f"peer=c10d allreduce_ms={max(told.values()):.1f}")


if __name__ == "__main__":
    main()
