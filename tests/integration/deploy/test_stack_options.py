"""What the options of `up` change in the stack."""

import base64

import pytest

from tests.integration.deploy.conftest import (
    CIDR,
    Checkout,
    Command,
    launch_template,
    open_ports,
    parameter,
    stack_parameters,
)
from tests.support.deploy.aws import AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost

EVERYWHERE = "0.0.0.0/0"


def test_the_ami_is_kept_until_a_new_one_is_asked_for(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str
) -> None:
    assert ec2.up() == 0, ec2.errors
    newest = stack_parameters(aws)["ImageId"]
    older = next(
        it["ImageId"]
        for it in aws.client("ec2").describe_images(Owners=["amazon"])["Images"]
        if it["ImageId"] != newest
    )
    cloudformation = aws.client("cloudformation")
    parameters = stack_parameters(aws) | {"ImageId": older}
    cloudformation.update_stack(
        StackName="darkroom",
        UsePreviousTemplate=True,
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Tags=[{"Key": "darkroom", "Value": "darkroom"}],
    )
    assert ec2.up("--type", "c7i.2xlarge") == 0, ec2.errors
    assert stack_parameters(aws)["ImageId"] == older
    assert "InstanceType: c7i.xlarge → c7i.2xlarge" in ec2.errors
    assert "the host is replaced" in ec2.errors
    assert ec2.up("--type", "c7i.2xlarge", "--new-ami") == 0, ec2.errors
    assert stack_parameters(aws)["ImageId"] == newest
    assert ec2.up("--cidr", "198.51.100.0/24", "--type", "c7i.2xlarge") == 0, ec2.errors
    assert "the host is replaced" not in ec2.errors


@pytest.mark.parametrize(
    ("arguments", "ports"),
    [
        (["--domain", "images.example.com"], {(80, EVERYWHERE), (443, EVERYWHERE)}),
        (
            ["--domain", "images.example.com", "--key-name", "mine"],
            {(80, EVERYWHERE), (443, EVERYWHERE), (22, EVERYWHERE)},
        ),
    ],
)
def test_a_domain_opens_the_ports_of_the_web_alone(
    aws: AwsServer, ec2: Command, tag: str, arguments: list[str], ports: set
) -> None:
    aws.client("ec2").create_key_pair(KeyName="mine")
    aws.run = None
    ec2.refuses("up", "--cidr", EVERYWHERE, *arguments, "--wait-seconds", "0.1")  # no host is behind that domain
    assert open_ports(aws) == ports
    lines = parameter(aws, "environment").splitlines()
    assert "DOMAIN=images.example.com" in lines
    assert "COMPOSE_PROFILES=tls" in lines
    assert not [line for line in lines if line.startswith("BIND=")], "the API itself stays on the loopback"


def test_options_reach_the_launch_template(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    aws.client("ec2").create_key_pair(KeyName="mine")
    assert ec2.up("--key-name", "mine", "--spot", "--s3-bucket", "pictures") == 0, ec2.errors
    data = launch_template(aws)
    assert data["KeyName"] == "mine"
    assert data["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert "S3=1" in base64.b64decode(data["UserData"]).decode()
    assert open_ports(aws) == {(5000, CIDR), (22, CIDR)}
    assert ec2("status") == 0
    subnet = stack_parameters(aws)["SubnetId"]
    options = f"--type c7i.xlarge --key-name mine --subnet {subnet} --s3-bucket pictures --spot"
    assert f"options    up --cidr {CIDR} {options}" in ec2.output


def test_a_gpu_host_has_its_ami_its_images_and_room_for_them(
    aws: AwsServer, ec2: Command, host: StandInHost, checkout: Checkout
) -> None:
    put_images(aws, f"{checkout.commit()}-gpu")
    aws.quotas["L-DB2E81BA"] = 4
    assert ec2.up("--gpu") == 0, ec2.errors
    data = launch_template(aws)
    assert data["InstanceType"] == "g4dn.xlarge"
    assert data["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 100
    assert stack_parameters(aws)["ImageSource"] == (
        "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
    )
    assert "GPU=1" in base64.b64decode(data["UserData"]).decode()
