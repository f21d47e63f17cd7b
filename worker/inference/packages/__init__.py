"""Model packages: loading, checking and exporting them, and `torch.export` programs."""
