"""Seeded faults are found and located."""

import pytest

from tests.export.leftovers import OWN
from tests.export.parity.parity_faults import FAULTS
from tests.export.parity.parity_trials import RELU6, seeded
from tests.networks import APPLICATIONS

# The networks in which each fault has a place, but for those that are slow.
PLACES = {fault: ("digits_cnn", "preact_resnet") for fault in FAULTS} | {"ReLU6 as ReLU": (RELU6,)}


def assert_found(name, fault, seed=0):
    found = seeded(name, fault, seed)
    if found is None:
        pytest.skip("the network has no place for the fault")
    layer, report = found
    assert not report.passed
    assert report.fault.stage == "file"
    assert layer in report.fault.layers
    # What is named besides is what the file has no tensor of: in a DenseNet, a block's beginning.
    assert len(report.fault.layers) <= 6


@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault, names in PLACES.items() for name in names]
)
def test_seeded_fault_is_found_and_located(fault, name):
    assert_found(name, fault)


# All of them take half an hour (`python -m tests.export.parity.parity_trials`): two in each
# network, in turns.
SOME = [
    (list(FAULTS)[(2 * i + j) % len(FAULTS)], name)
    for i, name in enumerate([*OWN, *APPLICATIONS])
    for j in range(2)
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name"), SOME)
def test_seeded_fault_is_found_and_located_in_whole_networks(fault, name):
    assert_found(name, fault, seed=1)
