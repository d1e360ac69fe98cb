"""Attacks: mutated pictures, bundles and checkpoints, signals and full disks. Seeded; a part runs in `make test`."""
