"""The syntax of tables, and names that are told apart."""

from eelbert_jax.reporting.text import Table, markdown, tell_apart


def test_pipes_in_names_do_not_break_a_table():
    assert markdown(Table("T", ("a",), (("x|y",),))).splitlines()[-1] == r"| x\|y |"


def test_names_grow_only_where_others_have_the_same():
    assert tell_apart([("a", "x/a"), ("b", "x/b"), ("a", "y/a")]) == ["x/a", "b", "y/a"]
    assert tell_apart([("a",), ("a", "a (1)", "a (2)"), ("a", "a (1)", "a (3)")]) == ["a", "a (2)", "a (3)"]
    assert tell_apart([]) == []
