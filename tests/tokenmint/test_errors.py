from __future__ import annotations

import inspect

from tokenmint import errors
from tokenmint.errors import TokenmintError

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, TokenmintError)]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [found.code for found in CLASSES]
    assert len(set(codes)) == len(codes) > 15


def test_a_code_is_its_class_without_the_word_error() -> None:
    """Roots of branches have words of their own: they are never raised themselves."""
    leaves = [found for found in CLASSES if not found.__subclasses__()]
    assert [found.code for found in leaves] == [found.__name__.removesuffix("Error") for found in leaves]


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert [found.__name__ for found in CLASSES if found.__name__ not in (errors.__doc__ or "")] == []
