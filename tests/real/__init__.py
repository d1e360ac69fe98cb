"""What edgeseg makes of real checkpoints and pictures; skipped where they are not beside the checkout."""
