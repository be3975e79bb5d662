"""Documents: typed structs through the store and back; what is damaged says so."""

import msgspec
import pytest

from daemon.core.errors import Code, StoreCorrupt
from daemon.store import documents
from daemon.store.env import Environment, StoreConfig


class Note(msgspec.Struct, frozen=True):
    words: str
    numbers: tuple[float, ...]
    later: int | None = None


class Shelf(msgspec.Struct, frozen=True):
    notes: list[Note]


NOTE = Note("plain words that do not compress, and \N{GREEK SMALL LETTER PI}", (0.1, 1e300, -0.0))


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield env


def put(env, kind, identity, document):
    env.write(lambda transaction: documents.put(transaction, kind, identity, document))


def found(env, kind, struct=Note):
    with env.read() as transaction:
        return list(documents.scan(transaction, kind, struct))


def test_a_document_comes_back_as_it_was_put(env):
    put(env, "note", "a", NOTE)
    with env.read() as transaction:
        assert documents.get(transaction, "note", "a", Note) == NOTE
        assert documents.get(transaction, "note", "b", Note) is None
        assert documents.get(transaction, "shelf", "a", Shelf) is None


def test_a_document_is_replaced_whole(env):
    put(env, "note", "a", NOTE)
    put(env, "note", "a", Note("new", ()))
    assert found(env, "note") == [Note("new", ())]


def test_documents_of_a_kind_are_ordered_by_identity(env):
    for identity in ("b", "a-b", "a", "a.b", "B"):
        put(env, "note", identity, Note(identity, ()))
    put(env, "notebook", "a", Note("of another kind", ()))
    put(env, "not", "a", Note("of another kind", ()))
    assert [note.words for note in found(env, "note")] == ["B", "a", "a-b", "a.b", "b"]


def test_a_deleted_document_is_gone_and_its_neighbours_stay(env):
    for identity in ("a", "a.b"):
        put(env, "note", identity, Note(identity, ()))
    assert env.write(lambda transaction: documents.delete(transaction, "note", "a"))
    assert not env.write(lambda transaction: documents.delete(transaction, "note", "a"))
    assert [note.words for note in found(env, "note")] == ["a.b"]


def test_a_document_written_before_a_field_was_added_is_read_with_its_default(env):
    old = msgspec.defstruct("Note", [("words", str), ("numbers", tuple[float, ...])])
    put(env, "note", "a", old("early", (1.0,)))
    assert found(env, "note") == [Note("early", (1.0,))]


@pytest.mark.parametrize("flip", [*(1 << bit for bit in range(8)), 0xC1, 0xFF])
def test_a_flipped_byte_is_damage_or_changes_nothing(flip):
    value = documents.pack(NOTE)
    outcomes = []
    for place in range(len(value)):
        damaged = bytearray(value)
        damaged[place] ^= flip
        try:
            outcomes.append(documents.unpack(bytes(damaged), Note))
        except StoreCorrupt as error:
            outcomes.append(error.code)
    assert set(outcomes) <= {Code.STORE_CORRUPT, NOTE}
    assert outcomes.count(Code.STORE_CORRUPT) >= len(value) - 1  # the frame has one bit that says nothing


def test_a_truncated_document_is_damage():
    value = documents.pack(NOTE)
    for size in range(len(value)):
        with pytest.raises(StoreCorrupt, match="a stored Note is damaged"):
            documents.unpack(memoryview(value)[:size], Note)


def test_a_document_of_another_kind_is_damage(env):
    put(env, "note", "a", NOTE)
    with env.read() as transaction, pytest.raises(StoreCorrupt, match="a stored Shelf is damaged"):
        documents.get(transaction, "note", "a", Shelf)
