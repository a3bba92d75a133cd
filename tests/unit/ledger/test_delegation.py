"""Delegations: what a delegate may, for how long, and nothing else; and that an owner's word comes back."""

from __future__ import annotations

import pytest

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import delegation
from hypermesh_ledger.execution.context import read

from ...builders import Member, allocation
from .world import CPU, Settled

OTHER_CLUSTER = "6a1f0c52-0000-4000-8000-000000000002"
SHARING, RELEASE = delegation.SHARING, delegation.RELEASE
DAY_MS = 86_400_000


class Owners:
    """A settled world with `friend`, an operator of another cluster, who has leave for nothing yet."""

    def __init__(self, world: Settled) -> None:
        self.world = world
        self.friend = world.enrol(trust_pb2.ROLE_OPERATOR, "friend", cluster=2, cluster_uid=OTHER_CLUSTER)

    def revision(self, owner: Member) -> int:
        held = read(self.world.state, keys.delegations(owner.key_id), ledger_pb2.Delegations)
        return 0 if held is None else held.revision

    def delegating(self, owner: Member, *rights: int, to: Member | None = None, for_ms: int = DAY_MS) -> bytes:
        operation = ledger_pb2.Delegate(
            delegate=(to or self.friend).key_id,
            rights=rights,  # type: ignore[arg-type]
            until_ms=self.world.now_ms + for_ms,
            revision=self.revision(owner),
        )
        return self.world.tx(owner, delegate=operation)

    def revoking(self, owner: Member, who: Member | None = None) -> bytes:
        operation = ledger_pb2.Revoke(delegate=(who or self.friend).key_id, revision=self.revision(owner))
        return self.world.tx(owner, revoke=operation)

    def sharing(self, signer: Member, **changes: object) -> bytes:
        """An update of the CPU's sharing; capacity changes that instead."""
        record = self.world.asset(self.world.cpu_id)
        wanted = ledger_pb2.Sharing()
        wanted.CopyFrom(record.registration.sharing)
        capacity = changes.pop("capacity", record.registration.capacity)
        for name, value in changes.items():
            setattr(wanted, name, value)
        operation = ledger_pb2.UpdateAsset(
            asset_id=self.world.cpu_id,
            revision=record.revision,
            capacity=capacity,  # type: ignore[arg-type]
            sharing=wanted,
        )
        refs = self.world.refs(signer, self.world.node, self.world.cpu_id)
        return self.world.tx(signer, refs, update_asset=operation)

    def held(self, uid: str = "u") -> bytes:
        """An allocation by the world's operator."""
        asked = allocation(self.world.node, self.world.cpu, uid, 1)
        assert self.world.reason(self.world.allocate(asked)) is None
        return asked.allocation_id


@pytest.fixture
def owners(settled: Settled) -> Owners:
    return Owners(settled)


def test_a_delegate_pauses_and_prices_and_nothing_else(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    assert world.reason(owners.sharing(friend, paused=True)) is Reason.RoleForbidden
    assert world.reason(owners.delegating(world.node, SHARING)) is None
    assert world.reason(owners.sharing(friend, paused=True, price_per_hour="7")) is None
    sharing = world.asset(world.cpu_id).registration.sharing
    assert (sharing.paused, sharing.price_per_hour) == (True, "7")
    assert world.reason(world.allocate(allocation(world.node, world.cpu, "u", 1))) is Reason.AssetPaused
    assert world.reason(owners.sharing(friend, capacity=99)) is Reason.RoleForbidden
    refs = world.refs(friend, world.node, world.cpu_id)
    retire = ledger_pb2.RetireAsset(asset_id=world.cpu_id, revision=world.asset(world.cpu_id).revision)
    assert world.reason(world.tx(friend, refs, retire_asset=retire)) is Reason.RoleForbidden
    assert world.reason(owners.sharing(friend, paused=False)) is None
    assert world.reason(world.release(owners.held(), friend)) is Reason.RoleForbidden


def test_the_delegates_stake_and_the_nodes_hardware(owners: Owners) -> None:
    """Tickets are those of the asset's node; the stake ticket is the delegate's own."""
    world, friend = owners.world, owners.friend
    assert world.reason(owners.delegating(world.node, SHARING)) is None
    record = world.asset(world.cpu_id)
    operation = ledger_pb2.UpdateAsset(
        asset_id=world.cpu_id, revision=record.revision, capacity=record.registration.capacity
    )
    operation.sharing.CopyFrom(record.registration.sharing)
    operation.sharing.paused = True
    owners_stake = world.refs(world.node, world.node, world.cpu_id)
    assert world.reason(world.tx(friend, owners_stake, update_asset=operation)) is Reason.StakeTicketForeign
    for _ in range(world.genesis.proofs.grace_epochs + 1):
        world.next_epoch()
    assert world.reason(owners.sharing(friend, paused=True)) is Reason.SpaceTicketStale


def test_a_delegation_ends_by_block_time(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    assert world.reason(owners.delegating(world.node, SHARING, for_ms=1_000)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is None
    world.block(after_ms=990)
    assert world.reason(owners.sharing(friend, paused=False)) is Reason.RoleForbidden


def test_a_delegation_is_revoked_and_an_old_one_does_not_come_back(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    given = owners.delegating(world.node, SHARING)
    assert world.reason(given) is None
    assert world.reason(given) is Reason.RevisionConflict
    assert world.reason(owners.revoking(world.node)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is Reason.RoleForbidden
    assert world.reason(given) is Reason.RevisionConflict
    assert world.reason(owners.revoking(world.node)) is Reason.NotDelegated
    assert world.reason(owners.delegating(world.node, SHARING)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is None


@pytest.mark.parametrize("whose", ["owner", "tenant"])
def test_a_delegate_releases_for_either_side(owners: Owners, whose: str) -> None:
    world, friend = owners.world, owners.friend
    allocation_id = owners.held()
    assert world.reason(world.release(allocation_id, friend)) is Reason.RoleForbidden
    giver = world.node if whose == "owner" else world.operator
    assert world.reason(owners.delegating(giver, RELEASE)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is Reason.RoleForbidden
    assert world.reason(world.release(allocation_id, friend)) is None
    assert world.asset(world.cpu_id).reserved == 0


def test_rights_are_not_handed_on(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    third = world.enrol(trust_pb2.ROLE_NODE, "node-3", cluster=3, cluster_uid="third")
    assert world.reason(owners.delegating(world.node, SHARING, RELEASE)) is None
    assert world.reason(owners.delegating(friend, RELEASE, to=third)) is None
    allocation_id = owners.held()
    assert world.reason(owners.sharing(third, paused=True)) is Reason.RoleForbidden
    assert world.reason(world.release(allocation_id, third)) is Reason.RoleForbidden


def test_another_owners_leave_is_none(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2", counter=1)
    assert world.reason(owners.delegating(other, SHARING, RELEASE)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is Reason.RoleForbidden
    assert world.reason(world.release(owners.held(), friend)) is Reason.RoleForbidden


def test_who_may_give_what_to_whom(owners: Owners) -> None:
    world, friend = owners.world, owners.friend
    validator = world.enrol(trust_pb2.ROLE_VALIDATOR, "ledger-0")
    assert world.reason(owners.delegating(validator, RELEASE)) is Reason.RoleForbidden
    assert world.reason(owners.delegating(world.node, RELEASE, to=validator)) is Reason.RoleForbidden
    assert world.reason(owners.delegating(world.node, RELEASE, to=world.node)) is Reason.Malformed
    assert world.reason(owners.delegating(world.operator, SHARING)) is Reason.Malformed, "it has no assets to share"
    assert world.reason(owners.delegating(world.node, RELEASE, SHARING)) is Reason.Malformed, "not sorted"
    assert world.reason(owners.delegating(world.node)) is Reason.Malformed
    assert world.reason(owners.delegating(world.node, SHARING, for_ms=0)) is Reason.Malformed
    assert world.reason(owners.delegating(world.node, SHARING, for_ms=delegation.LONGEST_MS + 60_000)) is (
        Reason.Malformed
    )
    unknown = ledger_pb2.Delegate(delegate=b"?" * 32, rights=[RELEASE], until_ms=world.now_ms + DAY_MS)
    assert world.reason(world.tx(world.node, delegate=unknown)) is Reason.UnknownSigner
    assert world.reason(owners.revoking(friend)) is Reason.NotDelegated


def test_an_owner_has_so_many_delegates_and_those_that_ended_make_room(owners: Owners) -> None:
    world = owners.world
    friends = [
        world.enrol(trust_pb2.ROLE_OPERATOR, f"friend-{each}", cluster_uid=OTHER_CLUSTER, cluster=2)
        for each in range(delegation.LIVE)
    ]
    for each in friends:
        assert world.reason(owners.delegating(world.node, RELEASE, to=each, for_ms=5_000)) is None
    assert world.reason(owners.delegating(world.node, RELEASE)) is Reason.TooManyDelegates
    assert world.reason(owners.delegating(world.node, SHARING, to=friends[3])) is None, "a change takes no room"
    world.block(after_ms=5_000)
    assert world.reason(owners.delegating(world.node, RELEASE)) is None
    held = read(world.state, keys.delegations(world.node.key_id), ledger_pb2.Delegations)
    assert held is not None
    assert sorted(each.delegate for each in held.delegations) == [each.delegate for each in held.delegations]
    assert len(held.delegations) == 2


def test_the_owners_own_word_is_kept_until_it_changes(owners: Owners) -> None:
    """What an agent needs in order not to undo a delegate's word at once."""
    world, friend = owners.world, owners.friend
    before = world.asset(world.cpu_id).registration.sharing
    assert world.reason(owners.delegating(world.node, SHARING)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is None
    assert world.reason(owners.sharing(friend, price_per_hour="9")) is None
    assert world.asset(world.cpu_id).owner_sharing == before
    assert world.reason(owners.sharing(world.node, capacity=90)) is None
    assert world.asset(world.cpu_id).owner_sharing == before, "a changed capacity is no word on sharing"
    assert world.reason(owners.sharing(world.node, price_per_hour="3")) is None
    assert not world.asset(world.cpu_id).HasField("owner_sharing")
    assert world.reason(owners.sharing(friend, paused=False)) is None
    assert world.reason(owners.sharing(friend, paused=True)) is None
    assert not world.asset(world.cpu_id).HasField("owner_sharing"), "both say the same again"


def test_nothing_of_it_is_in_the_state_before_its_first_use(settled: Settled) -> None:
    assert not list(settled.state.scan(keys.DELEGATIONS))
    assert settled.asset(settled.cpu_id).registration.type == CPU
    assert not settled.asset(settled.cpu_id).HasField("owner_sharing")
