"""What a service answers to Prometheus."""

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(port: int) -> Samples:
    """Each sample by its name and its labels."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert answer.is_success, answer.text
    found = Samples()
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all samples that have these labels, perhaps beside others."""
    wanted = frozenset(labels.items())
    found = [it for (each, labelled), it in samples.items() if each == name and wanted <= labelled]
    assert found, f"no {name} with {labels}"
    return sum(found)


def label_values(samples: Samples, label: str) -> set[str]:
    return {dict(labels)[label] for _, labels in samples if label in dict(labels)}


def names(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


def without(samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float], *prefixes: str) -> Samples:
    return {key: it for key, it in samples.items() if not key[0].startswith(prefixes)}
