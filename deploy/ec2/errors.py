"""What stops a deployment."""


class DeployError(Exception):
    """The text is one line for the operator."""
