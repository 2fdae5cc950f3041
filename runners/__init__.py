"""The commands, each a library function with a thin `main(argv)`, and what running needs."""
