"""Reproduces the packages under `weights/` from Fashion-MNIST."""
