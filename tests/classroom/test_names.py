"""Students' names, as teachers write them."""

from __future__ import annotations

import pytest

from servicelab.classroom.group import Group, current, of_namespace
from servicelab.classroom.names import LONGEST, MOST, Student, cleaned, listed, parsed
from servicelab.errors import LabError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("  Zoë   Müller-Łuk ", "zoe-muller-luk"),
        ("Straße & Søn", "strasse-son"),
        ("kube-system", "kube-system"),
        ("..//..", ""),
        ("王小明", ""),
        ("a_b.c", "a-b-c"),
        ("Ｆｕｌｌ７", "full7"),
    ],
)
def test_cleaned(name, key):
    assert cleaned(name) == key


def test_a_list_keeps_names_and_gives_namespaces_of_their_own():
    found = listed(["\ufeff# the class", "", "Ada", "wang: 王小明", "kube-system", "default"])
    assert found == [Student("ada", "Ada"), Student("wang", "王小明"), Student("kube-system", "kube-system"), Student("default", "default")]
    assert [one.namespace for one in found] == ["student-ada", "student-wang", "student-kube-system", "student-default"]


def test_all_trouble_at_once_with_line_numbers():
    with pytest.raises(LabError) as caught:
        listed(["Ana", "王小明", "ANÁ", "x" * (LONGEST + 1), "fine"], "class.txt")
    said = str(caught.value)
    assert "Nothing was made, since class.txt" in said
    assert "line 2: '王小明' has no letter" in said and "`short-name: 王小明`" in said
    assert "line 3: 'ANÁ' becomes 'ana', as 'Ana' on line 1 does; write `ana-2: ANÁ`" in said
    assert "line 4:" in said and f"{LONGEST} are the most" in said and "line 5" not in said


@pytest.mark.parametrize("lines", [[], ["", "   "], ["# nobody"]])
def test_an_empty_list(lines):
    with pytest.raises(LabError, match="There are no names in"):
        listed(lines)


def test_a_huge_list():
    with pytest.raises(LabError, match=f"has {MOST + 1} names, and a class has at most {MOST}"):
        listed([f"student {n}" for n in range(MOST + 1)])


@pytest.mark.parametrize("count", ["0", "-3", str(MOST + 1), "99999999"])
def test_counts_that_can_not_be(count):
    with pytest.raises(LabError, match="can't be made: give from 1 to"):
        parsed(count)


def test_counts():
    assert [one.key for one in parsed("3")] == ["01", "02", "03"]
    assert parsed("120")[-1] == Student("120", "Student 120")


def test_files(tmp_path):
    file = tmp_path / "names.txt"
    with pytest.raises(LabError, match="neither a number of students nor a file"):
        parsed(str(file))
    file.write_bytes("Zoë\r\nAda\r\n".encode("utf-8-sig"))
    assert [one.key for one in parsed(str(file))] == ["zoe", "ada"]
    file.write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(LabError, match="isn't a text in UTF-8"):
        parsed(str(file))


@pytest.mark.parametrize("name", ["Big", "a_b", "9x", "x" * 17, "x-"])
def test_a_class_of_a_bad_name(name, monkeypatch):
    monkeypatch.setenv("SERVICELAB_CLASS", name)
    with pytest.raises(LabError, match="a class's name has up to 16"):
        current()


@pytest.mark.parametrize("group", [Group(), Group("spring-2")])
def test_the_longest_name_fits_and_leads_back_to_its_class(group, monkeypatch):
    monkeypatch.setenv("SERVICELAB_CLASS", group.name)
    (one,) = listed(["y" * LONGEST])
    assert len(one.namespace) <= 63
    assert of_namespace(one.namespace) == group
