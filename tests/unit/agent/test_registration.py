"""What the node asks of the ledger, from what is there, what the ledger holds, and what the owner wants."""

from __future__ import annotations

import pytest
from agent_samples import CPU, DISK, IDLE_DISK, KEY, NODE, SHARED, assets, record

from hypermesh import addressing, operations
from hypermesh.v1 import ledger_pb2
from hypermesh_agent.hardware import Hardware, Kind
from hypermesh_agent.registration import plan, sharing_of


def test_names_ids_and_work_devices() -> None:
    disk, cpu = sorted(assets(CPU, DISK), key=lambda asset: asset.hardware.kind, reverse=True)
    assert cpu.asset_id == operations.asset_id(KEY, ledger_pb2.ASSET_TYPE_CPU, "m:numa0")
    assert cpu.name == f"node1-cpu-{cpu.asset_id.hex()[:8]}"
    assert cpu.work_device == cpu.asset_id
    assert disk.work_device == cpu.asset_id


def test_without_a_cpu_nothing_can_prove_the_disk() -> None:
    assert assets(DISK) == []


def test_new_hardware_is_registered_with_its_address_and_the_owners_word() -> None:
    cpu, disk = assets(CPU, DISK)
    deeds = plan(NODE, [cpu, disk], {}, {cpu.asset_id: SHARED, disk.asset_id: SHARED}, {disk.asset_id: 2})
    first, second = (deed.operation for deed in deeds)
    assert isinstance(first, ledger_pb2.RegisterAsset)
    assert isinstance(second, ledger_pb2.RegisterAsset)
    assert first.capacity == 8000
    assert first.sharing.price_per_hour == str(5 * 10**17)
    fields = addressing.parse(second.address)
    assert fields.type is addressing.AddressType.STORAGE
    assert fields.asset == addressing.asset_bits(KEY, addressing.AddressType.STORAGE, "serial:1", 2)
    assert second.address_counter == 2


def test_hardware_whose_resource_is_not_seen_yet_waits() -> None:
    assert plan(NODE, assets(CPU), {}, {}, {}) == []


def test_a_disk_with_nothing_to_give_is_not_registered() -> None:
    (_, disk) = assets(CPU, IDLE_DISK)
    assert plan(NODE, [disk], {}, {disk.asset_id: SHARED}, {}) == []


def test_nothing_to_do_when_the_ledger_holds_it() -> None:
    (cpu,) = assets(CPU)
    assert plan(NODE, [cpu], {cpu.asset_id: record(cpu)}, {cpu.asset_id: SHARED}, {}) == []


def test_the_owners_edit_is_an_update_at_the_records_revision() -> None:
    (cpu,) = assets(CPU)
    paused = sharing_of({"sharing": {"privacyLevel": "Public", "pricePerHour": "0.5", "paused": True}})
    (deed,) = plan(NODE, [cpu], {cpu.asset_id: record(cpu)}, {cpu.asset_id: paused}, {})
    assert deed.operation == ledger_pb2.UpdateAsset(asset_id=cpu.asset_id, revision=3, capacity=8000, sharing=paused)


def test_a_delegates_word_stands_until_the_owners_changes() -> None:
    (cpu,) = assets(CPU)
    held = record(cpu)
    held.owner_sharing.CopyFrom(SHARED)
    held.registration.sharing.paused = True
    assert plan(NODE, [cpu], {cpu.asset_id: held}, {cpu.asset_id: SHARED}, {}) == []
    dearer = sharing_of({"sharing": {"privacyLevel": "Public", "pricePerHour": "0.75"}})
    (deed,) = plan(NODE, [cpu], {cpu.asset_id: held}, {cpu.asset_id: dearer}, {})
    assert deed.operation == ledger_pb2.UpdateAsset(asset_id=cpu.asset_id, revision=3, capacity=8000, sharing=dearer)


@pytest.mark.parametrize(("reserved", "expected"), [(0, 8000), (9000, 9000)])
def test_capacity_follows_the_hardware_but_never_below_what_is_promised(reserved: int, expected: int) -> None:
    (cpu,) = assets(CPU)
    held = record(cpu, reserved=reserved, capacity=16000)
    (deed,) = plan(NODE, [cpu], {cpu.asset_id: held}, {cpu.asset_id: SHARED}, {})
    assert isinstance(deed.operation, ledger_pb2.UpdateAsset)
    assert deed.operation.capacity == expected


def test_vanished_hardware_is_retired_when_free() -> None:
    cpu, disk = assets(CPU, DISK)
    (deed,) = plan(NODE, [cpu], {cpu.asset_id: record(cpu), disk.asset_id: record(disk)}, {}, {})
    assert deed.operation == ledger_pb2.RetireAsset(asset_id=disk.asset_id, revision=3)


def test_vanished_hardware_that_is_promised_is_paused_once() -> None:
    cpu, disk = assets(CPU, DISK)
    held = record(disk, reserved=100)
    (deed,) = plan(NODE, [cpu], {disk.asset_id: held}, {}, {})
    assert isinstance(deed.operation, ledger_pb2.UpdateAsset)
    assert deed.operation.sharing.paused
    assert deed.operation.capacity == 100
    held.registration.capacity = 100
    held.registration.sharing.CopyFrom(deed.operation.sharing)
    assert plan(NODE, [cpu], {disk.asset_id: held}, {}, {}) == []


def test_a_failing_probe_retires_nothing_of_its_kind() -> None:
    cpu, disk = assets(CPU, DISK)
    assert plan(NODE, [cpu], {disk.asset_id: record(disk)}, {}, {}, unknown=[Kind.STORAGE]) == []


def test_another_nodes_assets_are_left_alone() -> None:
    cpu, disk = assets(CPU, DISK)
    foreign = record(disk)
    foreign.node = b"\x09" * 32
    assert plan(NODE, [cpu], {disk.asset_id: foreign}, {}, {}) == []


def test_hardware_that_came_back_registers_after_its_retired_record() -> None:
    cpu, disk = assets(CPU, DISK)
    (deed,) = plan(NODE, [disk], {disk.asset_id: record(disk, retired=True)}, {disk.asset_id: SHARED}, {})
    assert isinstance(deed.operation, ledger_pb2.RegisterAsset)
    assert deed.operation.revision == 3
    assert cpu


def test_a_disk_that_lost_the_pool_is_retired() -> None:
    (_, disk) = assets(CPU, DISK)
    held = record(disk)
    (_, idle) = assets(CPU, Hardware(Kind.STORAGE, "serial:1", 1000, 0))
    (deed,) = plan(NODE, [idle], {disk.asset_id: held}, {disk.asset_id: SHARED}, {})
    assert isinstance(deed.operation, ledger_pb2.RetireAsset)
