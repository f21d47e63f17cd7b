"""What a deployment costs, by a table with a date: an estimate before anything is made, not an invoice."""

from typing import NamedTuple

AS_OF = "2026-11"
"""The table's month. Prices are on-demand, Linux, in US dollars, without tax."""
HOURS_A_MONTH = 730
ROOT_GIB, GPU_ROOT_GIB = 20, 100
"""The host's disk: two releases' images beside the system; those of the CUDA build have 8 GB each."""
DATA_GIB = 20
IMAGES_GB, GPU_IMAGES_GB = 1, 5
"""One release in ECR, compressed."""

ADDRESS_HOUR = 0.005
ECR_GB_MONTH = 0.10
_GP3_GIB_MONTH = {"us-east-1": 0.08, "us-east-2": 0.08, "us-west-2": 0.08, "eu-central-1": 0.0952}
_US = {
    "c7g.xlarge": 0.145,
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "c7i.4xlarge": 0.714,
    "g4dn.xlarge": 0.526,
    "g5.xlarge": 1.006,
    "m7i.large": 0.1008,
    "m7i.xlarge": 0.2016,
    "t3.large": 0.0832,
    "t3.medium": 0.0416,
    "t3.xlarge": 0.1664,
}
_HOST_HOUR = {
    "us-east-1": _US,
    "us-east-2": _US,
    "us-west-2": _US,
    "eu-central-1": {
        "c7i.large": 0.10185,
        "c7i.xlarge": 0.2037,
        "c7i.2xlarge": 0.4074,
        "c7i.4xlarge": 0.8148,
        "g4dn.xlarge": 0.658,
        "g5.xlarge": 1.258,
        "t3.large": 0.096,
        "t3.medium": 0.048,
        "t3.xlarge": 0.192,
    },
}


class Cost(NamedTuple):
    what: str
    dollars_an_hour: float | None
    """None if the table has no price."""


class Hosts(NamedTuple):
    """Hosts with workers alone."""

    number: int
    type: str


def costs(region: str, instance_type: str, *, gpu: bool, spot: bool, workers: Hosts | None = None) -> list[Cost]:
    """What is paid by the hour while the stack is up. Traffic is not in it."""
    gib_hour = _GP3_GIB_MONTH.get(region, float("nan")) / HOURS_A_MONTH
    known = region in _GP3_GIB_MONTH
    root_gib, images_gb = (GPU_ROOT_GIB, GPU_IMAGES_GB) if gpu else (ROOT_GIB, IMAGES_GB)
    prices, less = _HOST_HOUR.get(region, {}), ", spot: less than this on-demand price" if spot else ""
    rows = [
        Cost(f"host, {instance_type}{less}", prices.get(instance_type)),
        Cost(f"its disk, {root_gib} GiB", root_gib * gib_hour if known else None),
        Cost(f"data volume, {DATA_GIB} GiB (kept by `down`)", DATA_GIB * gib_hour if known else None),
        Cost("address", ADDRESS_HOUR),
        Cost(f"images in ECR, {images_gb} GB a release", images_gb * ECR_GB_MONTH / HOURS_A_MONTH),
    ]
    if workers is not None:
        number, type_ = workers
        price = prices.get(type_)
        rows += [
            Cost(f"{number} × worker host, {type_}{less}", None if price is None else number * price),
            Cost(f"{number} × its disk, {root_gib} GiB", number * root_gib * gib_hour if known else None),
            Cost(f"{number} × its public address", number * ADDRESS_HOUR),
        ]
    return rows


def table(region: str, instance_type: str, *, gpu: bool, spot: bool, workers: Hosts | None = None) -> list[str]:
    """The costs as lines of text, with their sum."""
    rows = costs(region, instance_type, gpu=gpu, spot=spot, workers=workers)
    total = sum(cost.dollars_an_hour or 0 for cost in rows)
    unknown = [cost.what for cost in rows if cost.dollars_an_hour is None]
    lines = [_line(*cost) for cost in rows]
    lines.append(_line("together" + (", without what has no price here" if unknown else ""), total))
    if unknown:
        types = " and ".join(dict.fromkeys([instance_type, *([workers.type] if workers else [])]))
        lines.append(f"  the table has no price of {types} in {region}: https://aws.amazon.com/ec2/pricing/on-demand/")
    return [f"cost in {region} by the table of {AS_OF}, in US dollars, without traffic and tax:", *lines]


def _line(what: str, dollars_an_hour: float | None) -> str:
    if dollars_an_hour is None:
        return f"  {what:<60} {'?':>8}"
    return f"  {what:<60} {dollars_an_hour:8.4f} an hour {dollars_an_hour * HOURS_A_MONTH:9.2f} a month"
