"""Training: data, networks, losses, the loop, export and evaluation. Never imported by the live path."""
