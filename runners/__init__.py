"""The commands, each a library function with a thin `main(argv)`, and what running needs."""

import torch

# glibc hands large blocks back to the system when they are freed, and pays for their pages again when it gets them:
# at each step, for a network's activations. Below the size of the largest such block so far, up to 32 MiB, it keeps
# them; one that is never touched costs nothing, and makes importance sampling a quarter faster on a CPU.
_block = torch.empty(2**25 - 2**13, dtype=torch.uint8)
del _block
