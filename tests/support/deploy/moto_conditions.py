"""Makes moto heed conditions in UpdateStack, as AWS does: it would update and keep what has a false condition."""

from typing import Any

from moto.cloudformation.parsing import ResourceMap

_build_resource_diff, _update = ResourceMap.build_resource_diff, ResourceMap.update


def _heeding_conditions(self: Any, template: dict[str, Any], parameters: Any = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = _build_resource_diff(self, template, parameters)
    after = ResourceMap(
        self.stack_id,
        self._parsed_resources["AWS::StackName"],
        parameters or self.input_parameters,
        self.tags,
        self._region_name,
        self._account_id,
        template,
        self.cross_stack_resources,
    )
    after.load_mapping()
    after.load_parameters()
    after.load_conditions()
    for name, resource in template["Resources"].items():
        if "Condition" not in resource:
            continue
        made, live = name in self._parsed_resources, after.lazy_condition_map[resource["Condition"]]
        if made and live:
            continue
        for names in found.values():
            names[:] = [it for it in names if it != name]
        if made != live:
            found["Add" if live else "Remove"].append(name)
    return found


def _forgetting_what_is_removed(self: Any, template: dict[str, Any], parameters: Any = None) -> None:
    removed = self.build_resource_diff(template, parameters)["Remove"]
    _update(self, template, parameters)
    for name in removed:
        self._parsed_resources.pop(name, None)


def heed_conditions() -> None:
    """In this process, for all of moto's servers."""
    ResourceMap.build_resource_diff = _heeding_conditions
    ResourceMap.update = _forgetting_what_is_removed
