"""The numeric tests under other kernels and numbers of threads than this machine would choose, as a table.

    .venv/bin/python benchmarks/numeric_matrix.py
    .venv/bin/python benchmarks/numeric_matrix.py --row avx2-1

A row is a set of kernels and a number of threads; each runs in processes of its own. `native` leaves the choice to the
libraries, `avx2` makes them compute as on a processor without AVX-512, and `default` as on one without AVX. The digest
is of a few results in float32: where it differs, the row did compute otherwise. Exit status 1: a test failed.
"""

import argparse
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
KERNELS = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
"""What torch, oneDNN, MKL and OpenBLAS are told; NumPy is told by the features that it has above a level."""
NUMPY_KEEPS = {"native": None, "avx2": "X86_V3", "default": ""}
THREADS = (1, 2)
ROWS = [f"{kernels}-{threads}" for kernels, threads in itertools.product(KERNELS, THREADS)]

PROBE = """
import hashlib, numpy, torch
generator = torch.Generator().manual_seed(1)
a, b = (torch.randn(257, 257, generator=generator, dtype=torch.float64).float() for _ in range(2))
found = torch.softmax(a @ b / 16, -1).cumsum(-1).numpy(), numpy.exp(a.numpy()) @ b.numpy()
print(torch.backends.cpu.get_cpu_capability(), hashlib.sha256(b"".join(x.tobytes() for x in found)).hexdigest()[:8])
"""


def environment(row: str) -> dict[str, str]:
    """What the processes of a row are told."""
    kernels, threads = row.rsplit("-", 1)
    told = {**KERNELS[kernels], "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    told["OMP_WAIT_POLICY"] = "PASSIVE"  # on a busy machine, threads that spin while they wait take minutes
    if disabled := numpy_features_above(NUMPY_KEEPS[kernels]):
        told["NPY_DISABLE_CPU_FEATURES"] = " ".join(disabled)
    return {**os.environ, **told}


def numpy_features_above(level: str | None) -> list[str]:
    """The features that NumPy would use here and that come after `level`; with '' all, with None none of them."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    used = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    if level is None:
        return []
    return used[used.index(level) + 1 :] if level in used else used if level == "" else []


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} threads"


def run(row: str) -> tuple[str, bool]:
    """A row's line of the table, and whether every test passed."""
    told = environment(row)
    capability, digest = subprocess.run(
        [sys.executable, "-c", PROBE], env=told, check=True, capture_output=True, text=True
    ).stdout.split()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "numeric", "-p", "no:cacheprovider", f"--junitxml={report}"],
            cwd=ROOT, env=told, capture_output=True, text=True,
        )  # fmt: skip
        suite = ElementTree.parse(report).getroot().find("testsuite") if report.exists() else None
    tests, failed = (0, 0) if suite is None else (int(suite.get("tests", 0)), _failed(suite))
    passed = done.returncode == 0 and tests > 0
    if not passed:
        print(done.stdout[-8000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    seconds = time.monotonic() - started
    return f"| {row} | {capability} | {digest} | {tests - failed} | {failed} | {seconds:.0f} |", passed


def _failed(suite: ElementTree.Element) -> int:
    return int(suite.get("failures", 0)) + int(suite.get("errors", 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="this row only; may be given several times")
    rows = parser.parse_args().row or ROWS
    print(f"{processor()}\n")
    print("| row | torch's kernels | float32 digest | passed | failed | seconds |\n|---|---|---|--:|--:|--:|")
    everything_passed = True
    for row in rows:
        line, passed = run(row)
        everything_passed &= passed
        print(line, flush=True)
    return 0 if everything_passed else 1


if __name__ == "__main__":
    sys.exit(main())
