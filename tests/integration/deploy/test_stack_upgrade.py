"""`up` again: newer images and other settings on the host that is there."""

from pathlib import Path

from tests.integration.deploy.conftest import (
    CIDR,
    Checkout,
    Command,
    Made,
    parameter,
)
from tests.support.deploy.aws import AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost


def test_up_upgrades_in_place(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made()
    put_images(aws, newer := checkout.commit())
    assert ec2.up() == 0, ec2.errors
    assert f"upgrading {tag} to {newer}" in ec2.errors
    assert ec2.output.startswith(f"ready: {newer} at ")
    assert (host.current, parameter(aws, "tag")) == (newer, newer)
    assert made() == before


def test_an_upgrade_that_does_not_get_healthy_goes_back(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str
) -> None:
    assert ec2.up() == 0, ec2.errors
    put_images(aws, broken := checkout.commit())
    host.break_tag(broken)
    assert ec2.refuses("up", "--cidr", CIDR) == f"{broken} did not get healthy: {tag} runs again, as before"
    assert (host.current, parameter(aws, "tag")) == (tag, tag), "a replaced host must not run what is broken"
    assert f"darkroom-host: {broken} did not get healthy" in ec2.errors


def test_a_host_that_does_not_get_back_is_not_said_to_run(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str
) -> None:
    assert ec2.up() == 0, ec2.errors
    put_images(aws, broken := checkout.commit())
    host.break_tag(broken, former_too=True)
    refused = ec2.refuses("up", "--cidr", CIDR)
    assert refused == f"{broken} did not get healthy, and {tag} does not any more: see `status`"


def test_up_goes_on_where_an_upgrade_was_interrupted(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str
) -> None:
    """The host runs the new images, and the parameter still has the former tag."""
    assert ec2.up() == 0, ec2.errors
    put_images(aws, newer := checkout.commit())
    host.run("", [f"darkroom-host upgrade {newer}"])
    assert ec2.up() == 0, ec2.errors
    assert (host.current, parameter(aws, "tag")) == (newer, newer)


def test_a_host_on_which_nothing_runs_gets_the_newer_images(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str
) -> None:
    """The first images do not start: the host tries what the parameter names, again and again."""
    host.never_starts = tag
    assert "the service is not ready" in ec2.refuses("up", "--cidr", CIDR, "--wait-seconds", "0.3")
    put_images(aws, newer := checkout.commit())
    aws.after["PutParameter"] = host.boot
    assert ec2.up() == 0, ec2.errors
    assert (host.current, parameter(aws, "tag")) == (newer, newer)


def test_settings_of_a_file_reach_the_host_and_stay(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, tmp_path
) -> None:
    file = tmp_path / "settings"
    file.write_text("# ours\n\nMODELS=fmnist-cnn,fmnist-mlp\n")
    assert ec2.up() == 0, ec2.errors
    secrets = parameter(aws, "environment")
    assert ec2.up("--env-file", str(file)) == 0, ec2.errors
    assert "with new settings" in ec2.errors
    assert parameter(aws, "environment") == f"{secrets}\nMODELS=fmnist-cnn,fmnist-mlp"
    assert ec2.up() == 0, ec2.errors
    assert parameter(aws, "environment") == f"{secrets}\nMODELS=fmnist-cnn,fmnist-mlp"
    file.write_text("")
    assert ec2.up("--env-file", str(file)) == 0, ec2.errors
    assert parameter(aws, "environment") == secrets


def test_settings_that_do_not_start_are_taken_back(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, tmp_path: Path
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = parameter(aws, "environment")
    (file := tmp_path / "settings").write_text("MODELS=no-such-model\n")
    host.break_tag(tag)
    refused = ec2.refuses("up", "--cidr", CIDR, "--env-file", str(file))
    assert refused == f"{tag} with new settings did not get healthy: {tag} runs again, as before"
    assert parameter(aws, "environment") == before


def test_settings_reach_the_host_after_an_interruption(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, tmp_path: Path
) -> None:
    """The parameter has them, the host not yet."""
    assert ec2.up() == 0, ec2.errors
    changed = f"{parameter(aws, 'environment')}\nMODELS=fmnist-mlp"
    aws.client("ssm").put_parameter(Name="/darkroom/environment", Value=changed, Type="SecureString", Overwrite=True)
    assert ec2.up() == 0, ec2.errors
    assert f"starting {tag} with new settings" in ec2.errors
    assert ec2.up() == 0, ec2.errors
    assert ec2.errors == ""


def test_a_host_that_comes_up_with_the_former_images_is_upgraded(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout, tag: str
) -> None:
    """It had read the parameter before `up` changed it."""
    boot = aws.after.pop("CreateStack")
    ec2.refuses("up", "--cidr", CIDR, "--wait-seconds", "0.1")
    put_images(aws, newer := checkout.commit())

    def late() -> None:
        boot()
        host.pretend(tag)

    aws.after["PutParameter"] = late
    assert ec2.up() == 0, ec2.errors
    assert f"upgrading {tag} to {newer}" in ec2.errors
    assert (host.current, parameter(aws, "tag")) == (newer, newer)
