import pytest

from chaos.faults.table import FAULTS
from chaos.mutants import MUTANTS
from tests.support.processes import ROOT


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_names_places_that_are_there_once_and_a_fault(name: str) -> None:
    mutant = MUTANTS[name]
    text = (ROOT / mutant.file).read_text()
    assert [text.count(place) for place in mutant.changes] == [1] * len(mutant.changes)
    assert mutant.fault in FAULTS
