"""The machine that numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from lucency.records import Record


class Machine(Record):
    """processors: those that this process may use. threads: torch's. load: processes that wanted
    a processor in the minute before, without which a time means little (`None` = not known)."""

    cpu: str
    processors: int
    memory_gib: float | None
    amx: bool
    avx512_bf16: bool
    device: str
    threads: int
    python: str
    torch: str
    platform: str
    load: float | None

    def __str__(self) -> str:
        known = (("AMX", self.amx), ("AVX-512-BF16", self.avx512_bf16))
        extensions = " and ".join(name for name, has in known if has) or "no AMX, no AVX-512-BF16"
        memory = "" if self.memory_gib is None else f", {self.memory_gib:.0f} GiB"
        load = "" if self.load is None else f", load {self.load:.2f} at the start"
        return (
            f"{self.cpu}, {self.processors} processors, {extensions}{memory}; "
            f"device {self.device}, {self.threads} threads; "
            f"Python {self.python}, torch {self.torch}{load}"
        )


def describe_machine() -> Machine:
    """This machine, now."""
    return Machine(
        cpu=_cpu(),
        processors=_processors(),
        memory_gib=_memory_gib(),
        amx=bool(torch.cpu._is_amx_tile_supported()),
        avx512_bf16=bool(torch.cpu._is_avx512_bf16_supported()),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
