"""What every run needs: the training loop, its history, checkpoints and run folders."""
