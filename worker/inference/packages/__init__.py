"""Model packages: loading and making them, and programs of torch.export."""
