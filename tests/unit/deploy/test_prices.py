from datetime import UTC, datetime

import pytest

from deploy.ec2.prices import AS_OF, HOURS_A_MONTH, costs, table


@pytest.mark.parametrize(("region", "type_"), [("us-east-1", "c7i.xlarge"), ("eu-central-1", "g4dn.xlarge")])
def test_the_sum_is_that_of_the_lines(region: str, type_: str) -> None:
    rows = costs(region, type_, gpu=False, spot=False)
    total = sum(cost.dollars_an_hour or 0 for cost in rows)
    *_, together = table(region, type_, gpu=False, spot=False)
    assert together.split() == ["together", f"{total:.4f}", "an", "hour", f"{total * HOURS_A_MONTH:.2f}", "a", "month"]
    assert AS_OF in table(region, type_, gpu=False, spot=False)[0]
    assert datetime.strptime(AS_OF, "%Y-%m").replace(tzinfo=UTC)


def test_a_price_that_is_not_known_is_not_counted_as_nothing() -> None:
    text = "\n".join(table("ap-south-1", "x9.large", gpu=False, spot=False))
    assert "?" in text
    assert "together, without what has no price here" in text
    assert "https://aws.amazon.com/ec2/pricing/on-demand/" in text


def test_a_gpu_takes_a_larger_disk_and_spot_is_said_to_be_less() -> None:
    text = "\n".join(table("us-east-1", "g4dn.xlarge", gpu=True, spot=True))
    assert "100 GiB" in text
    assert "spot: less than this on-demand price" in text
