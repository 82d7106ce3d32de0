"""Names of classes as they are typed on the page."""

from collections.abc import Collection

from ome.data.names import EMPTY, check_class, check_classes, normal_form
from ome.errors import UserError


def checked_name(name: str, taken: Collection[str]) -> str:
    """A class name in its normal form.

    Raises:
        UserError: See `check_class`; or the name stands for an empty cell in tables, or one in `taken`
            differs at most in upper and lower case.
    """
    name = check_class(normal_form(name), "the class")
    if name.casefold() in EMPTY:
        raise UserError(f"the class {name!r} stands for an empty cell in many tables: give it another name")
    if same := [other for other in taken if other.casefold() == name.casefold()]:
        raise UserError(f"class {same[0]} already exists")
    check_classes(dict.fromkeys((*taken, name), 0), "the page", typed=True)
    return name
