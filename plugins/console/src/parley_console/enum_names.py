"""The words of the contract's enums."""

from google.protobuf.descriptor import EnumDescriptor


def name_of(enum: EnumDescriptor, number: int) -> str:
    """Return the contract's full name of a value; a number that this version does not know stands for itself."""
    known = enum.values_by_number.get(number)
    return known.name if known else str(number)


def short_name_of(enum: EnumDescriptor, number: int) -> str:
    """Return the name without the prefix that all values of the enum share: `SUCCEEDED`."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return name_of(enum, number).removeprefix(prefix)
