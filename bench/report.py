"""What `make bench` found, as a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from matplotlib.figure import Figure

RESULTS = Path("bench/results")
PICTURE = Path("docs/pictures/bench.svg")
Row = Mapping[str, Any]


def line(row: Row) -> str:
    """One load, for a terminal."""
    each = " ".join(f"{name} {ms:.3f}" for name, ms in row["cpu_ms"].items())
    return (
        f"{row['service']:11} {row['mode']:15} {row['image']:4} {row['in_flight']:3} in flight "
        f"{row['images_per_second']:7,.0f} images/s  p50 {row['p50_ms']:.1f} p99 {row['p99_ms']:.1f} ms  "
        f"CPU {row['server_cpu_ms']:.3f} ms ({each}), client {row['client_cpu_ms']:.3f}"
    )


def write(found: Mapping[str, Any]) -> None:
    """The figures, the table and the picture, each as a file of its own."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (RESULTS / "bench.json").write_bytes(orjson.dumps(found, option=options))
    parts = (
        _compared(found),
        _fixed(found["fixed"]),
        _batches(found["batches"]),
        _all(found["rows"]),
        _facts(found["facts"]),
    )
    table = "\n".join(parts)
    (RESULTS / "bench.md").write_text(table)
    _picture(found["rows"], PICTURE)
    print(table)


def _compared(found: Mapping[str, Any]) -> str:
    """What took turns: each row beside both baselines and the limit of one core."""
    rows: Sequence[Row] = found["compared"]
    limit = {it["kind"]: it["cpu_us"] / 1000 for it in found["limits"] if it["batch"] == 64}
    base = {(row["service"], row["image"]): row for row in rows if row["service"] != "Darkroom"}
    heads = ["alternating runs, medians", "image", "in flight", "images/s", "× tutorial", "× synchronous"]
    text = begin_table(*heads, "server CPU, ms", "efficiency", "p50 · p99 ms")
    for row in rows:
        ratios = [
            f"{row['images_per_second'] / base[name, row['image']]['images_per_second']:.1f} ×"
            for name in ("tutorial", "synchronous")
        ]
        latencies = f"{row['p50_ms']:.1f} · {row['p99_ms']:.1f}" if row["p50_ms"] else ""
        text.append(
            f"| {row['service']}, {row['mode']} | {row['image']} | {row['in_flight']} | "
            f"{row['images_per_second']:,.0f} | {' | '.join(ratios)} | {row['server_cpu_ms']:.3f} | "
            f"{100 * limit[row['image']] / row['server_cpu_ms']:.0f}% | {latencies} |"
        )
    limits = ", ".join(f"{kind} {ms:.3f} ms" for kind, ms in limit.items())
    return "\n".join(text) + f"\n\nThe limit of one core, in batches of 64: {limits} of CPU an image.\n"


def _fixed(rows: Sequence[Row]) -> str:
    """Latency at the same number in flight for all, beside both baselines with one in flight."""
    base = {(row["service"], row["image"]): row["p50_ms"] for row in rows if row["service"] != "Darkroom"}
    heads = ["alternating runs, medians", "image", "in flight", "p50, ms", "× tutorial", "× synchronous"]
    text = begin_table(*heads, "p99, ms", "p99 / p50")
    for row in rows:
        ratios = ["", ""]
        if row["in_flight"] == 1:
            ratios = [f"{row['p50_ms'] / base[name, row['image']]:.2f} ×" for name in ("tutorial", "synchronous")]
        text.append(
            f"| {row['service']}, {row['mode']} | {row['image']} | {row['in_flight']} | {row['p50_ms']:.2f} | "
            f"{' | '.join(ratios)} | {row['p99_ms']:.2f} | {row['p99_ms'] / row['p50_ms']:.1f} × |"
        )
    return "\n".join(text) + "\n"


def _batches(found: Sequence[Mapping[str, Any]]) -> str:
    """Which share of the forwards had so many images."""
    text = begin_table("images a forward", "image", "in flight", "mean", *found[0]["forwards"])
    for it in found:
        forwards = sum(it["forwards"].values())
        shares = (f"{100 * number / forwards:.0f}%" if number else "" for number in it["forwards"].values())
        text.append(
            f"| Darkroom, {it['mode']} | {it['image']} | {it['in_flight']} | {it['mean']:.1f} | {' | '.join(shares)} |"
        )
    return "\n".join(text) + "\n\nThe share of forwards with so many images, in a run of its own.\n"


def _all(rows: Sequence[Row]) -> str:
    heads = ["service", "mode", "image", "in flight", "images/s", "p50", "p95", "p99", "p99.9 ms"]
    text = begin_table(*heads, "server CPU, ms an image", "client's", "requests an image")
    for row in rows:
        each = ", ".join(f"{name} {ms:.3f}" for name, ms in row["cpu_ms"].items())
        latencies = " | ".join(f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms"))
        text.append(
            f"| {row['service']} | {row['mode']} | {row['image']} | {row['in_flight']} | "
            f"{row['images_per_second']:,.0f} | {latencies} | {row['server_cpu_ms']:.3f} ({each}) | "
            f"{row['client_cpu_ms']:.3f} | {row['requests']:.2f} |"
        )
    return "\n".join(text) + "\n"


def begin_table(*heads: str) -> list[str]:
    """The beginning of a table."""
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def _facts(facts: Mapping[str, Any]) -> str:
    ready = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in facts["ready_seconds"].items())
    peak = ", ".join(f"{name} {size >> 20} MiB" for name, size in facts["peak_bytes"].items())
    sizes = ", ".join(f"{name} {size:,} bytes" for name, size in facts["image_bytes"].items())
    return (
        f"{facts['cores']} cores, client and all servers on them. Darkroom: one API process, a worker of two, "
        "appendfsync always, a key and all limits on, ended jobs kept for a minute. The tutorial: Redis without a "
        f"file. Valkey's allocator: {facts['allocator']}. Polls: one 50 ms after the submit, then every 50 ms. Every "
        "class was the right one, and nothing failed: the bench ends with 1 otherwise. Images: "
        f"{sizes} on average. Ready after: {ready}. Peak of resident memory: {peak}.\n"
    )


def _picture(rows: Sequence[Row], path: Path) -> None:
    """Throughput against latency, and CPU an image by process, for PNGs."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    pngs = [row for row in rows if row["image"] == "PNG"]
    names = list(dict.fromkeys(_name(row) for row in pngs))
    for name in names:
        of_name = [row for row in pngs if _name(row) == name]
        left.plot(
            [row["p50_ms"] for row in of_name], [row["images_per_second"] for row in of_name], marker="o", label=name
        )
    left.set(xscale="log", yscale="log", xlabel="p50, ms", ylabel="images/s", title="PNG, 1 to 512 in flight")
    left.legend(fontsize=8)
    best = [
        max((row for row in pngs if _name(row) == name), key=lambda row: row["images_per_second"]) for name in names
    ]
    bottom = [0.0] * len(best)
    for process in ("api", "worker", "valkey"):
        sizes = [row["cpu_ms"].get(process, 0.0) for row in best]
        right.barh(names, sizes, left=bottom, label=process)
        bottom = [at + size for at, size in zip(bottom, sizes, strict=True)]
    right.set(xlabel="server CPU, ms an image, where it does most", title="PNG")
    right.invert_yaxis()
    right.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _name(row: Row) -> str:
    return f"{row['service']}, {row['mode']}" if row["service"] == "Darkroom" else str(row["service"])
